/** The small process that starts the daemon's programs, as set-up builds it. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, readdir, readlink, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { abortable, background, underDeadline, withTimeout } from '../../../lib/base/context.js';
import { systemExec } from '../../../lib/base/exec.js';
import type { Logger } from '../../../lib/base/logger.js';
import { silentLogger } from '../../../lib/base/logger.js';
import { endProcess, isAlive, readStat } from '../../../lib/base/processes.js';
import { HypervisorProcess } from '../../../lib/drivers/qemu/process.js';
import type { StarterOptions } from '../../../lib/drivers/starter/program-starter.js';
import { ProgramStarter } from '../../../lib/drivers/starter/program-starter.js';
import { execSuite } from '../../suites/exec.js';
import { launcherSuite } from '../../suites/launcher.js';
import { eventually } from '../../tools/eventually.js';
import { hostHelper } from '../../tools/host-helper.js';
import { rejection } from '../../tools/rejection.js';
import { StalledFs } from '../../tools/stalled-fs.js';

const ctx = background();
const env = { PATH: '/usr/bin:/bin' };
const starters: ProgramStarter[] = [];

function newStarter(program = hostHelper, options: StarterOptions = {}): ProgramStarter {
  const starter = new ProgramStarter(program, options);
  starters.push(starter);
  return starter;
}

execSuite('herkos-host', () => newStarter());
launcherSuite('herkos-host', () => newStarter());

describe('the starter of programs', () => {
  after(async () => {
    for (const starter of starters) await starter.close();
  });

  async function childOf(starter: ProgramStarter): Promise<number> {
    await eventually(async () => (await childrenOf(starter.pid ?? 0)).length > 0);
    return (await childrenOf(starter.pid ?? 0))[0] ?? 0;
  }

  it('is another process’s child, and leaves nothing of its own open in what it starts', async () => {
    const starter = newStarter();
    const { stdout } = await starter.run(ctx, 'sh', ['-c', 'echo $PPID; ls /proc/self/fd']);
    expect(stdout.toString().trim().split('\n')).to.deep.equal([String(starter.pid), '0', '1', '2', '3']);
    expect(starter.pid).not.to.equal(process.pid);
  });

  it('is replaced when somebody kills it, and says so to those that wait', async () => {
    const starter = newStarter();
    const waiting = rejection(starter.run(ctx, 'sleep', ['1000']));
    const child = await childOf(starter);
    process.kill(starter.pid ?? 0, 'SIGKILL');
    expect(String(await waiting)).to.include('the starter of programs ended');
    expect((await starter.run(ctx, 'echo', ['again'])).stdout.toString()).to.equal('again\n');
    // Nobody was left to end it, as when a daemon without a starter is killed.
    process.kill(child, 'SIGKILL');
  });

  it('ends what it started, with its children, when it is closed', async () => {
    const starter = newStarter();
    const waiting = rejection(starter.run(ctx, 'sh', ['-c', 'sleep 1000 & wait']));
    const shell = await childOf(starter);
    await starter.close();
    expect(String(await waiting)).to.include('the starter of programs ended');
    await eventually(async () => (await groupOf(shell)).length === 0);
    expect(await rejection(starter.run(ctx, 'echo', []))).to.have.property('class', 'Unavailable');
  });

  it('ends with the daemon, however that ends, and so does what it started', async () => {
    const { daemon, pid, startTicks } = await daemonThat(`
      const running = starter.run(background(), 'sh', ['-c', 'echo $$ > /dev/stderr; sleep 1000 & wait']);`);
    await eventually(async () => (await childrenOf(pid)).length > 0);
    const [shell = 0] = await childrenOf(pid);
    daemon.kill('SIGKILL');
    await eventually(async () => !(await isAlive(pid, startTicks)));
    await eventually(async () => (await groupOf(shell)).length === 0);
  });

  it('leaves nothing open in what outlives the daemon but its three', async () => {
    await withLog(async (log) => {
      const { ended } = await newStarter().launch('ls', ['/proc/self/fd'], { env, log });
      await ended;
      // The last is the directory that is being listed.
      expect(await readFile(log, 'utf8')).to.equal('0\n1\n2\n3\n');
    });
  });

  it('leaves what outlives the daemon alone, and nobody knows of its end then', async () => {
    const starter = newStarter();
    await withLog(async (log) => {
      const closed = await starter.launch('sleep', ['1000'], { env, log });
      await starter.close();
      const other = newStarter();
      const killed = await other.launch('sleep', ['1000'], { env, log });
      process.kill(other.pid ?? 0, 'SIGKILL');
      for (const { pid, startTicks, ended } of [closed, killed]) {
        expect(await ended).to.equal(undefined);
        expect(await isAlive(pid, startTicks)).to.equal(true);
        await endProcess(ctx, pid, startTicks);
      }
    });
  });

  it('ends one that does not listen', async () => {
    const starter = newStarter();
    await starter.run(ctx, 'true', []);
    process.kill(starter.pid ?? 0, 'SIGSTOP');
    await starter.close();
  });

  it('is replaced when it hangs, and says so to those that wait', async () => {
    const starter = newStarter(hostHelper, { reportTimeoutMs: 300 });
    for (const order of [runFor10Ms, launchThrough]) {
      await starter.run(ctx, 'true', []);
      const { pid } = starter;
      await stop(pid ?? 0);
      const others = rejection(starter.run(ctx, 'true', []));
      expect(String(await rejection(order(starter)))).to.include('did not answer');
      expect(String(await others)).to.include('did not answer');
      expect((await starter.run(ctx, 'echo', ['again'])).stdout.toString()).to.equal('again\n');
      expect(starter.pid).not.to.equal(pid);
    }
  });

  it('is not replaced for a program that cannot be ended', async () => {
    const starter = newStarter(hostHelper, { reportTimeoutMs: 500 });
    const others = starter.run(ctx, 'sleep', ['1.5']);
    const { pid } = starter;
    // Out of its group, it keeps the output open.
    await rejection(
      abortable(withTimeout(ctx, 1400, 'waiting'), runFor10Ms(starter, 'setsid sleep 2 & sleep 1000')),
    );
    await others;
    expect(starter.pid).to.equal(pid);
  });

  it('that hangs keeps nobody from seeing that a program has ended', async () => {
    await withLog(async (log) => {
      const starter = newStarter();
      const launched = await starter.launch('sleep', ['1000'], { env, log });
      await stop(starter.pid ?? 0);
      const watched = new HypervisorProcess(launched, log);
      await underDeadline(ctx, 5_000, 'ending it', (step) => watched.kill(step));
      expect(await watched.exited).to.deep.equal({ lastWords: '' });
      process.kill(starter.pid ?? 0, 'SIGCONT');
    });
  }).timeout(10_000);

  describe('with a lock', () => {
    let directory: string;
    let lockFile: string;

    beforeEach(async () => {
      directory = await mkdtemp(join(tmpdir(), 'herkos-starter-'));
      lockFile = join(directory, 'lock');
    });

    afterEach(async () => {
      await rm(directory, { recursive: true });
    });

    it('keeps out every other one, and says whom to stop', async () => {
      const starter = newStarter(hostHelper, { lockFile });
      await starter.lock();
      await starter.lock();
      const { mode, size } = await stat(lockFile);
      expect([mode & 0o777, size]).to.deep.equal([0o600, 0]);
      const error = await rejection(newStarter(hostHelper, { lockFile, lockTimeoutMs: 1000 }).lock());
      expect(error).to.include({ class: 'FailedPrecondition', reason: 'STATE_DIR_IN_USE' });
      expect(String(error))
        .to.include(lockFile)
        .and.to.include(`process ${String(starter.pid)},`);
      const { stdout } = await starter.run(ctx, 'ls', ['/proc/self/fd']);
      expect(stdout.toString()).to.equal('0\n1\n2\n3\n');
      await starter.close();
    });

    it('waits for one that is about to end', async () => {
      const before = newStarter(hostHelper, { lockFile });
      await before.lock();
      const after = newStarter(hostHelper, { lockFile });
      const locked = after.lock();
      await after.run(ctx, 'true', []);
      process.kill(before.pid ?? 0, 'SIGKILL');
      await locked;
      await after.close();
    });

    it('takes it again when it was killed, and says so when another has been quicker', async () => {
      const { logger, errors } = errorLogger();
      const starter = newStarter(hostHelper, { lockFile, logger, lockTimeoutMs: 1000 });
      await starter.lock();
      const kill = async (): Promise<void> => {
        const { pid } = starter;
        process.kill(pid ?? 0, 'SIGKILL');
        await eventually(() => starter.pid !== pid);
      };
      await kill();
      await starter.lock();
      expect(errors).to.deep.equal([]);
      const other = newStarter(hostHelper, { lockFile });
      const quicker = other.lock();
      await eventually(async () => {
        const locks = await readFile('/proc/locks', 'utf8');
        return locks.includes(`-> POSIX  ADVISORY  WRITE ${String(other.pid)} `);
      });
      await kill();
      await quicker;
      await eventually(() => errors.length > 0);
      expect(errors).to.deep.equal(['the lock of the daemon is lost']);
      await starter.run(ctx, 'true', []);
      await other.close();
      await starter.close();
    });

    it('says why it cannot be had', async () => {
      const nowhere = join(directory, 'no/such');
      const error = await rejection(newStarter(hostHelper, { lockFile: nowhere }).lock());
      expect(String(error)).to.include(`cannot lock ${nowhere}: ENOENT`);
    });

    it('is free though a start of its predecessor hangs', async function () {
      if (!(await StalledFs.isPossible())) this.skip();
      const stalled = await StalledFs.mount();
      try {
        const starter = newStarter(hostHelper, { lockFile, reportTimeoutMs: 200 });
        await starter.lock();
        const held = rejection(starter.run(ctx, join(stalled.directory, 'program'), []));
        await childOf(starter);
        await rejection(runFor10Ms(starter));
        await held;
        await starter.lock();
        await starter.close();
      } finally {
        await stalled.unmount();
      }
    });
  });

  describe('when a file system stalls', () => {
    let stalled: StalledFs | undefined;
    let program: string;

    before(async function () {
      if (await StalledFs.isPossible()) return;
      console.log('      skipped: there is no FUSE');
      this.skip();
    });

    beforeEach(async () => {
      stalled = await StalledFs.mount();
      program = join(stalled.directory, 'program');
    });

    afterEach(async () => stalled?.unmount());

    it('is replaced as soon as it holds others up', async () => {
      const starter = newStarter(hostHelper, { reportTimeoutMs: 300 });
      const held = rejection(starter.run(ctx, program, []));
      await childOf(starter);
      expect(String(await rejection(runFor10Ms(starter)))).to.include('did not answer');
      expect(String(await held)).to.include('did not answer');
      expect((await starter.run(ctx, 'echo', ['again'])).stdout.toString()).to.equal('again\n');
    });

    it('ends soon after the daemon', async () => {
      const { daemon, pid, startTicks } = await daemonThat(`
        starter.run(background(), ${JSON.stringify(program)}, []);
        const running = starter.run(background(), 'true', []);`);
      await eventually(async () => (await childrenOf(pid)).length > 0);
      daemon.kill('SIGKILL');
      await eventually(async () => !(await isAlive(pid, startTicks)));
    }).timeout(20_000);
  });

  it('leaves neither process, zombie nor descriptor behind', async () => {
    const starter = newStarter();
    await starter.run(ctx, 'true', []);
    const files = `/proc/${String(starter.pid)}/fd`;
    const before = (await readdir(files)).length;
    await Promise.allSettled(
      Array.from({ length: 100 }, async (_, index) =>
        starter.run(ctx, ['true', 'false', '/no/such', 'yes'][index % 4] ?? '', [], { outputBytesMax: 10 }),
      ),
    );
    await eventually(async () => (await readdir(files)).length === before);
    expect(await childrenOf(starter.pid ?? 0)).to.deep.equal([]);
  });

  it('says what is wrong when it is not there, or is something else', async () => {
    expect(String(await rejection(newStarter('/no/such').run(ctx, 'true', [])))).to.include('/no/such');
    expect(String(await rejection(newStarter('/bin/echo').run(ctx, 'true', [])))).to.match(
      /the starter (sent|of programs ended)/,
    );
  });

  it('is told from a program by its errors when the node has no descriptor left', async () => {
    const limited = newStarter();
    await limited.run(ctx, 'true', []);
    await systemExec.run(ctx, 'prlimit', [`--pid=${String(limited.pid)}`, '--nofile=4:']);
    expect(await rejection(limited.run(ctx, 'true', []))).to.have.property('class', 'ResourceExhausted');
    await systemExec.run(ctx, 'prlimit', [`--pid=${String(limited.pid)}`, '--nofile=64:']);
    expect((await limited.run(ctx, 'true', [])).exitCode).to.equal(0);
    expect(await readlink(`/proc/${String(limited.pid)}/cwd`)).to.equal('/');
  });
});

function errorLogger(): { readonly logger: Logger; readonly errors: string[] } {
  const errors: string[] = [];
  return { errors, logger: { ...silentLogger, error: (message) => errors.push(message) } };
}

/** A process with a starter, which does something with it. */
async function daemonThat(
  does: string,
): Promise<{ readonly daemon: ChildProcess; readonly pid: number; readonly startTicks: string }> {
  const module = new URL('../../../lib/drivers/starter/program-starter.js', import.meta.url).href;
  const context = new URL('../../../lib/base/context.js', import.meta.url).href;
  const script = `
    const { ProgramStarter } = await import(${JSON.stringify(module)});
    const { background } = await import(${JSON.stringify(context)});
    const starter = new ProgramStarter(${JSON.stringify(hostHelper)});
    ${does}
    console.log(starter.pid);
    await running;`;
  const daemon = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(daemon.stdout, 'data')) as [Buffer];
  const pid = Number(line.toString());
  const { startTicks } = (await readStat(pid)) ?? { startTicks: '' };
  return { daemon, pid, startTicks };
}

async function runFor10Ms(starter: ProgramStarter, script = 'true'): Promise<unknown> {
  return starter.run(withTimeout(ctx, 10, 'it'), 'sh', ['-c', script]);
}

async function launchThrough(starter: ProgramStarter): Promise<unknown> {
  return starter.launch('true', [], { env, log: '/dev/null' });
}

async function withLog(body: (log: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'herkos-starter-'));
  try {
    await writeFile(join(directory, 'log'), '');
    await body(join(directory, 'log'));
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** Each thread stops when it next looks at its signals. */
async function stop(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP');
  const tasks = `/proc/${String(pid)}/task`;
  await eventually(async () => {
    const stats = (await readdir(tasks)).map((thread) => readFile(join(tasks, thread, 'stat'), 'utf8'));
    return (await Promise.all(stats)).every((stat) => stat.includes(') T '));
  });
}

async function childrenOf(parent: number): Promise<number[]> {
  const found: number[] = [];
  for (const thread of await readdir(`/proc/${String(parent)}/task`)) {
    const text = await readFile(`/proc/${String(parent)}/task/${thread}/children`, 'utf8').catch(() => '');
    found.push(
      ...text
        .split(' ')
        .filter((word) => word !== '')
        .map(Number),
    );
  }
  return found;
}

/** Of a process group, those that run. */
async function groupOf(group: number): Promise<number[]> {
  const { stdout } = await systemExec.run(ctx, 'pgrep', ['-g', String(group)], { okExitCodes: [0, 1] });
  return stdout
    .toString()
    .split('\n')
    .filter((line) => line !== '')
    .map(Number);
}

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { appendFile, mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { expect } from 'chai';

import { projectRoot } from '../../arch/project.js';
import { eventually } from '../../tools/eventually.js';
import { Harness } from '../cri/harness.js';

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The command as a shell would start it. */
describe('the process herkosctl', () => {
  let cri: Harness;
  before(async () => {
    cri = await Harness.start();
  });
  after(async () => {
    await cri.stop();
  });

  const main = join(projectRoot, 'dist/cmd/herkosctl/main.js');
  const start = async (args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> => {
    const child = spawn(process.execPath, [main, ...args], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (data: Buffer) => (stdout += data.toString()));
    child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
    const [code] = (await once(child, 'close')) as [number | null];
    return { code, stdout, stderr };
  };

  it('ends with 0, taking the socket from the environment', async () => {
    const { code, stdout } = await start(['ps', '-o', 'json'], { HERKOS_SOCKET: cri.socketPath });
    expect([code, stdout]).to.deep.equal([0, '[]\n']);
  });

  it('ends with 1 and one line when something fails', async () => {
    const { code, stdout, stderr } = await start(['stop', 'nothing'], {
      HERKOS_SOCKET: `unix://${cri.socketPath}`,
    });
    expect([code, stdout]).to.deep.equal([1, '']);
    expect(stderr).to.match(/^herkosctl: there is no pod or container 'nothing'[^\n]*\n$/);
  });

  it('ends with 2 when the command line is wrong', async () => {
    for (const args of [
      ['what'],
      ['run'],
      ['ps', '--odd'],
      ['logs', '--tail', 'x', 'y'],
      ['ps', '-o', 'xml'],
      ['run', '--memory', 'abc', 'x'],
      ['run', '--cpus', 'x', 'x'],
      ['run', '-p', 'x', 'x'],
      ['run', '-p', '80:65536', 'x'],
      ['run', '-u', '1:staff', 'x'],
    ]) {
      const { code, stderr } = await start(args);
      expect(code, args.join(' ')).to.equal(2);
      expect(stderr).to.contain('error:');
    }
  });

  it('never shows credentials that are written wrongly', async () => {
    for (const command of ['run', 'pull'])
      expect(await start([command, '--creds', 'secret', 'x'])).to.deep.equal({
        code: 2,
        stdout: '',
        stderr: 'herkosctl: --creds: write user:password\n',
      });
  });

  it('takes credentials from the option or the environment, the option first, by the same rules', async () => {
    const pull = async (creds: string, ...args: string[]): Promise<number | null> => {
      const env = { HERKOS_SOCKET: cri.socketPath, HERKOS_CREDS: creds };
      return (await start(['pull', 'example.org/app:1', ...args], env)).code;
    };
    for (const [creds, args] of [
      ['me:pass:word', []],
      ['you:x', ['--creds', 'me:pass:word']],
      ['secret', ['--creds', 'me:pass:word']],
    ] as const) {
      expect(await pull(creds, ...args)).to.equal(0);
      expect(cri.images.credentials).to.include({ username: 'me', password: 'pass:word' });
    }
    for (const [creds, args] of [
      ['', []],
      ['me:x', ['--creds', '']],
    ] as const) {
      expect(await pull(creds, ...args)).to.equal(0);
      expect(cri.images.credentials).to.equal(undefined);
    }
    const env = { HERKOS_SOCKET: cri.socketPath, HERKOS_CREDS: 'secret' };
    expect(await start(['pull', 'example.org/app:1'], env)).to.deep.equal({
      code: 2,
      stdout: '',
      stderr: 'herkosctl: HERKOS_CREDS: write user:password\n',
    });
  });

  it('ends with 2, and starts nothing, when --detach and --rm exclude each other', async () => {
    const { code, stderr } = await start(['run', '--socket', cri.socketPath, '-d', '--rm', 'x']);
    expect(code).to.equal(2);
    expect(stderr).to.match(/^herkosctl: --detach and --rm: [^\n]*leave one out[^\n]*\n$/);
    expect(cri.pods.sandboxes()).to.deep.equal([]);
  });

  it('ends with 125 when it could not run the command', async () => {
    const { code, stderr } = await start(['exec', '--socket', cri.socketPath, 'nothing', 'ls']);
    expect(code).to.equal(125);
    expect(stderr).to.contain("'nothing'");
  });

  it('ends with the exit code of the command', async () => {
    await cri.container(await cri.sandbox('web'));
    cri.pods.exec = () =>
      Promise.resolve({ exitCode: 42, stdout: Buffer.from('out'), stderr: Buffer.alloc(0) });
    const { code, stdout } = await start(['--socket', cri.socketPath, 'exec', 'web', 'false']);
    expect([code, stdout]).to.deep.equal([42, 'out']);
  });

  it('ends with 1, and says so, when its answer cannot be written', async () => {
    const full = openSync('/dev/full', 'w');
    try {
      for (const args of [['ps'], ['ps', '-o', 'json'], ['--help']]) {
        const child = spawn(process.execPath, [main, '--socket', cri.socketPath, ...args], {
          stdio: ['ignore', full, 'pipe'],
        });
        let stderr = '';
        child.stderr?.on('data', (data: Buffer) => (stderr += data.toString()));
        const [code] = (await once(child, 'close')) as [number | null];
        expect(code, args.join(' ')).to.equal(1);
        expect(stderr).to.match(/^herkosctl: cannot write to standard output: ENOSPC[^\n]*\n$/);
      }
    } finally {
      closeSync(full);
    }
  });

  it('ends with 0 and without a word when nobody reads its answer any more', async () => {
    const child = spawn(process.execPath, [main, '--socket', cri.socketPath, 'ps'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stdout.destroy();
    let stderr = '';
    child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
    const [code] = (await once(child, 'close')) as [number | null];
    expect([code, stderr]).to.deep.equal([0, '']);
  });

  for (const [stream, args, left] of [
    ['stdout', [], 'notready'],
    ['stdout', ['--rm'], undefined],
    ['stderr', ['--rm'], undefined],
  ] as const)
    it(`run leaves no pod running when nobody reads its ${stream} any more: ${args.join(' ')}`, async () => {
      const logs = join(cri.directory, `logs-${stream}`);
      const name = `unread-${stream}${args.join('')}`;
      const rest = ['--name', name, '--log-dir', logs, ...args, 'example.org/app:1'];
      const child = spawn(process.execPath, [main, '--socket', cri.socketPath, 'run', ...rest], {
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      const ended = once(child, 'close');
      const ours = () => cri.pods.sandboxes().find(({ config }) => config.metadata.name === name);
      const path = (): string | undefined =>
        cri.pods.containers().find(({ sandboxId, phase }) => sandboxId === ours()?.id && phase === 'running')
          ?.logPath;
      await eventually(() => path() !== undefined);
      child.stdout.destroy();
      if (stream === 'stderr') child.stderr.destroy();
      let stderr = '';
      child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
      const file = path() ?? '';
      await mkdir(dirname(file), { recursive: true });
      await appendFile(file, `2026-01-01T00:00:00Z ${stream} F hello\n`.repeat(10));
      expect((await ended)[0]).to.equal(stream === 'stdout' ? 0 : 1);
      expect(stderr).to.not.contain('herkosctl:');
      expect(ours()?.phase).to.equal(left);
    });

  it('tells its version and how it is used', async () => {
    expect((await start(['--version'])).stdout).to.match(/^\d+\.\d+\.\d+\n$/);
    expect((await start(['--help'])).code).to.equal(0);
  });
}).timeout(120_000);

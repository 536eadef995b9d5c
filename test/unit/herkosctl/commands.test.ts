import { existsSync } from 'node:fs';
import { appendFile, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { expect } from 'chai';

import { Exit } from '../../../cmd/herkosctl/exit-codes.js';
import type { CancellableContext } from '../../../lib/base/context.js';
import { background, withCancel } from '../../../lib/base/context.js';
import { HerkosError } from '../../../lib/base/errors.js';
import { Harness, containerConfig } from '../cri/harness.js';
import type { CliRun } from './cli.js';
import { herkosctl } from './cli.js';

const image = 'example.org/app:1';

describe('herkosctl', () => {
  let cri: Harness;
  let ctx: CancellableContext;
  beforeEach(async () => {
    cri = await Harness.start();
    ctx = withCancel(background());
  });
  afterEach(async () => {
    ctx.cancel();
    await cri.stop();
  });

  const cli = async (...args: string[]): Promise<CliRun> => herkosctl(cri.socketPath, args, ctx);
  const json = async (...args: string[]): Promise<unknown> => {
    const { stdout, error } = await cli(...args, '-o', 'json');
    expect(error).to.equal(undefined);
    return JSON.parse(stdout);
  };
  const run = async (...args: string[]): Promise<CliRun> =>
    cli('run', '--log-dir', join(cri.directory, 'logs'), ...args);
  /** The daemon's part of a container's life: it writes a line, then the container ends. */
  const writeAndExit = async (text: string, code: number): Promise<void> => {
    const [container] = cri.pods.containers();
    if (container === undefined) throw new Error('no container');
    await mkdir(dirname(container.logPath), { recursive: true });
    await appendFile(container.logPath, text);
    cri.pods.exit(container.id, code);
  };

  describe('run', () => {
    it('pulls, runs, and tells the time of each phase', async () => {
      const { stdout, stderr, error } = await run('-d', '--name', 'web', image, 'serve', '--port', '80');
      expect(error).to.equal(undefined);
      const [sandbox] = cri.pods.sandboxes();
      const [container] = cri.pods.containers();
      expect(stdout).to.equal(`${sandbox?.id ?? ''}\n`);
      expect(sandbox?.config.metadata.name).to.equal('web');
      expect(container?.config.args).to.deep.equal(['serve', '--port', '80']);
      expect(container?.phase).to.equal('running');
      expect(stderr).to.contain('own virtual machine');
      for (const phase of ['image', 'sandbox', 'sandbox/vm 12 ms', 'create', 'start'])
        expect(stderr).to.contain(phase);
      expect(cri.images.find(image)).to.not.equal(undefined);
    });

    it('turns options into what the kubelet would send', async () => {
      await run(
        ...['-d', '-e', 'A=b=c', '-p', '127.0.0.1:8080:80', '-p', '[::1]:53:53/udp', '-m', '64MiB'],
        ...['--cpus', '1.5', '-u', '1000:7', '-w', '/srv', image],
      );
      const [sandbox] = cri.pods.sandboxes();
      const [container] = cri.pods.containers();
      expect(sandbox?.config.portMappings).to.deep.equal([
        { protocol: 'TCP', containerPort: 80, hostPort: 8080, hostIp: '127.0.0.1' },
        { protocol: 'UDP', containerPort: 53, hostPort: 53, hostIp: '::1' },
      ]);
      expect(sandbox?.config.resources).to.include({ memoryLimitBytes: 64 * 1024 * 1024 });
      expect(container?.config.resources).to.include({ cpuQuotaUs: 150_000, cpuPeriodUs: 100_000 });
      expect(container?.config.security).to.include({ runAsUser: 1000, runAsGroup: 7 });
      expect(container?.config.security.seccomp).to.deep.equal({ type: 'RuntimeDefault' });
      expect(container?.config.workingDir).to.equal('/srv');
      const value = Buffer.from('b=c').toString('base64');
      expect(container?.config.envs).to.deep.equal([{ key: 'A', valueBase64: value }]);
    });

    it('shows the output, passes the exit code on, and leaves nothing with --rm', async () => {
      const ended = herkosctl(
        cri.socketPath,
        ['run', '--log-dir', join(cri.directory, 'logs'), '--rm', image],
        ctx,
        (text) => {
          if (text.includes('times:'))
            void writeAndExit('2026-01-01T00:00:00Z stdout F hello\n2026-01-01T00:00:00Z stderr P oops\n', 7);
        },
      );
      const { stdout, stderr, error } = await ended;
      expect(error).to.be.instanceOf(Exit).with.property('code', 7);
      expect(stdout).to.equal('hello\n');
      expect(stderr).to.contain('oops');
      expect(cri.pods.sandboxes()).to.deep.equal([]);
      expect(existsSync(join(cri.directory, 'logs'))).to.equal(true);
      expect((await import('node:fs')).readdirSync(join(cri.directory, 'logs'))).to.deep.equal([]);
    });

    it('removes the pod when its container cannot be made', async () => {
      cri.pods.createContainer = () => Promise.reject(new HerkosError('Internal', 'no such program'));
      const { error, stdout } = await run(image);
      expect(error).to.include({ name: 'HerkosError', message: 'no such program' });
      expect(stdout).to.equal('');
      expect(cri.pods.sandboxes()).to.deep.equal([]);
    });

    it('gives up and cleans up on Ctrl-C', async () => {
      const started = herkosctl(
        cri.socketPath,
        ['run', '--rm', '--log-dir', cri.directory, image],
        ctx,
        (text) => {
          if (text.includes('times:')) ctx.cancel();
        },
      );
      expect((await started).error).to.have.property('class', 'Cancelled');
      expect(cri.pods.sandboxes()).to.deep.equal([]);
    });

    it('never pulls when told so', async () => {
      const { error } = await run('--pull', 'never', image);
      expect(error).to.have.property('class', 'NotFound');
      expect(cri.images.list()).to.deep.equal([]);
    });

    for (const [bad, told] of [
      [['-p', 'x'], 'port-of-the-node'],
      [['-m', 'much'], '512MiB'],
      [['-u', '1:staff'], 'number'],
      [['--name', 'a b'], 'a b'],
      [['--rm'], '--detach and --rm'],
    ] as const)
      it(`refuses ${bad.join(' ')}`, async () => {
        const { error } = await run('-d', ...bad, image);
        expect(error).to.have.property('message').that.contains(told);
        expect(cri.pods.sandboxes()).to.deep.equal([]);
      });
  });

  it('ps shows what runs, and with -a what ran', async () => {
    const web = await cri.sandbox('web');
    const old = await cri.sandbox('old');
    const containerId = await cri.container(web);
    await cri.call(cri.rpc.startContainer, { containerId });
    await cri.call(cri.rpc.stopPodSandbox, { podSandboxId: old });
    const { stdout } = await cli('ps');
    expect(stdout).to.match(/^POD +POD ID .*\n/);
    expect(stdout).to.contain('web').and.contain('10.1.2.3').and.contain('running').and.contain('app:1');
    expect(stdout).to.not.contain('old');
    expect((await cli('ps', '-a')).stdout)
      .to.contain('old')
      .and.contain('not ready');
    expect(await json('ps')).to.have.nested.property('[0].containerId', containerId);
  });

  it('exec finds a container by pod, name or id, and passes the exit code on', async () => {
    const podSandboxId = await cri.sandbox('web');
    const containerId = await cri.container(podSandboxId);
    cri.pods.exec = (_ctx, command) =>
      Promise.resolve({ exitCode: 3, stdout: Buffer.from(command.join('+')), stderr: Buffer.from('e') });
    for (const target of ['web', 'app', containerId, containerId.slice(0, 8), podSandboxId.slice(0, 8)]) {
      const { stdout, stderr, error } = await cli('exec', '-t', '5', target, 'ls', '-l', '--all');
      expect(stdout).to.equal('ls+-l+--all');
      expect(stderr).to.equal('e');
      expect(error).to.be.instanceOf(Exit).with.property('code', 3);
    }
    expect(cri.pods.calls.at(-1)).to.equal(`execSync ${containerId} 5`);
  });

  it('says what fits when a name fits several', async () => {
    const podSandboxId = await cri.sandbox('web');
    await cri.container(podSandboxId, containerConfig({ metadata: { name: 'one' } }));
    await cri.container(podSandboxId, containerConfig({ metadata: { name: 'two' } }));
    const { error } = await cli('exec', 'web', 'ls');
    expect(error).to.have.property('message').that.contains('one').and.contains('two');
    expect((await cli('exec', '-c', 'two', 'web', 'ls')).error)
      .to.be.instanceOf(Exit)
      .with.property('code', 0);
    expect((await cli('exec', 'nobody', 'ls')).error).to.have.property('class', 'NotFound');
  });

  it('stop and rm act on pods and containers', async () => {
    const podSandboxId = await cri.sandbox('web');
    const containerId = await cri.container(podSandboxId);
    await cri.call(cri.rpc.startContainer, { containerId });
    expect((await cli('rm', 'web')).error)
      .to.have.property('message')
      .that.contains('--force');
    expect((await cli('stop', '-t', '3', 'app')).stdout).to.equal('app\n');
    expect(cri.pods.calls.at(-1)).to.equal(`stopContainer ${containerId} 3`);
    expect((await cli('stop', 'web')).stdout).to.equal('web\n');
    expect(cri.pods.sandbox(podSandboxId).phase).to.equal('notready');
    expect(await json('rm', 'web')).to.deep.equal({ removed: [podSandboxId] });
    expect(cri.pods.sandboxes()).to.deep.equal([]);
    const again = await cri.sandbox('again');
    expect((await cli('rm', '-f', again)).error).to.equal(undefined);
  });

  it('images, pull, import and image rm', async () => {
    const { stdout, stderr } = await cli('pull', image);
    expect(stdout).to.match(/^sha256:[0-9a-f]{64}\n$/);
    expect(stderr).to.contain(`pull ${image}: resolving`).and.contain('1/2 layers').and.contain('done');
    expect((await cli('images')).stdout).to.contain(image);
    expect(await json('images')).to.have.nested.property('[0].repoTags[0]', image);
    expect((await cli('image', 'rm', image)).stdout).to.equal(`${image}\n`);
    const imported = (await json('image', 'import', '/tmp/x.tar', '--name', image)) as { ids: string[] };
    expect(imported.ids).to.have.lengthOf(1);
    expect((await cli('image', 'import', '/etc/passwd')).error).to.have.property('class', 'InvalidArgument');
  });

  it('inspect tells all of a pod, a container and an image', async () => {
    const podSandboxId = await cri.sandbox('web');
    const containerId = await cri.container(podSandboxId);
    cri.images.add(image);
    expect(await json('inspect', 'web'))
      .to.deep.include({ kind: 'pod' })
      .and.nested.include({
        'status.state': 'SANDBOX_READY',
        'info.vm.pid': 4711,
      });
    expect(await json('inspect', containerId)).to.nested.include({
      kind: 'container',
      'info.phase': 'created',
    });
    expect(await json('inspect', image)).to.nested.include({ kind: 'image', 'status.pinned': false });
    expect((await cli('inspect', 'web')).stdout).to.contain('pid: 4711');
    expect((await cli('inspect', 'nothing')).error).to.have.property('class', 'NotFound');
  });

  it('never passes control characters of others on to the terminal', async () => {
    const podSandboxId = await cri.sandbox('web', { annotations: { evil: '\x1b[2J\x07' } });
    const { stdout } = await cli('inspect', podSandboxId);
    expect(stdout).to.not.contain('\x1b').and.not.contain('\x07');
  });

  describe('logs', () => {
    let containerId: string;
    let path: string;
    const line = (text: string, stream = 'stdout', tag = 'F'): string =>
      `2026-01-01T00:00:00.000000001Z ${stream} ${tag} ${text}\n`;
    beforeEach(async () => {
      const podSandboxId = await cri.sandbox('web', { logDirectory: join(cri.directory, 'pod') });
      containerId = await cri.container(podSandboxId);
      path = cri.pods.container(containerId).logPath;
      await mkdir(dirname(path), { recursive: true });
      await cri.call(cri.rpc.startContainer, { containerId });
    });

    it('gives each stream its own lines back, pieces joined', async () => {
      await writeFile(path, line('a') + line('b', 'stdout', 'P') + line('c') + line('x', 'stderr') + 'torn');
      const { stdout, stderr } = await cli('logs', 'web');
      expect(stdout).to.equal('a\nbc\n');
      expect(stderr).to.equal('x\n');
      expect((await cli('logs', '--tail', '1', 'web')).stdout).to.equal('');
      expect((await cli('logs', '--tail', '2', 'web')).stdout).to.equal('c\n');
      expect((await cli('logs', '-t', 'web')).stdout).to.equal(
        '2026-01-01T00:00:00.000000001Z a\n2026-01-01T00:00:00.000000001Z bc\n',
      );
    });

    it('follows over a rotation and ends with the container', async () => {
      const { rename } = await import('node:fs/promises');
      await writeFile(path, line('one'));
      let step = 0;
      const { stdout, error } = await herkosctl(cri.socketPath, ['logs', '-f', 'web'], ctx, (text) => {
        if (step === 0 && text.includes('one')) {
          step = 1;
          void appendFile(path, line('two'))
            .then(async () => rename(path, `${path}.1`))
            .then(async () => writeFile(path, line('three')));
        } else if (step === 1 && text.includes('three')) {
          step = 2;
          void appendFile(path, line('four')).then(() => {
            cri.pods.exit(containerId, 0);
          });
        }
      });
      expect(error).to.equal(undefined);
      expect(stdout).to.equal('one\ntwo\nthree\nfour\n');
    });

    it('waits for a file that is not there yet', async () => {
      const following = herkosctl(cri.socketPath, ['logs', '-f', '--tail', '5', 'web'], ctx);
      await appendFile(path, line('late'));
      cri.pods.exit(containerId, 0);
      expect((await following).stdout).to.equal('late\n');
    });
  });

  it('says that the daemon cannot be reached, and where it looked', async () => {
    const nowhere = join(cri.directory, 'no.sock');
    const { error } = await herkosctl(nowhere, ['ps']);
    expect(error).to.have.property('class', 'Unavailable');
    expect(error).to.have.property('message').that.contains(nowhere).and.contains('daemon');
  });
}).timeout(120_000);

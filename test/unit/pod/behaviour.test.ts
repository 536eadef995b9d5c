/** What the kubelet relies on (cri-behaviour §1.3-1.10). */
import { expect } from 'chai';
import { readFile, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';

import { background, withTimeout } from '../../../lib/base/context.js';
import { classOf, messageOf } from '../../../lib/base/errors.js';
import type { Pods } from '../../../lib/cri/ports.js';
import type { ContainerConfig } from '../../../lib/model/container.js';
import { containerConfig, sandboxConfig, testSecurity } from '../../fakes/pod-configs.js';
import type { Incarnation } from '../../fakes/pod-world.js';
import { FakeWorld, testDeadlines } from '../../fakes/pod-world.js';
import { eventually } from '../../tools/eventually.js';
import { rejection } from '../../tools/rejection.js';

const ctx = background();

describe('pods, as the kubelet knows them', function () {
  this.timeout(20_000);
  let world: FakeWorld;
  let daemon: Incarnation;
  let pods: Pods;

  beforeEach(async () => {
    world = await FakeWorld.create();
    world.deadlines = { ...testDeadlines, killMs: 100, drainMs: 200, stopContainersMs: 200, shutdownMs: 100 };
    daemon = await world.daemon();
    pods = daemon.pods;
  });

  afterEach(async () => {
    await daemon.pods.close();
    await world.remove();
  });

  async function run(): Promise<string> {
    return (await pods.runSandbox(ctx, sandboxConfig({ logDirectory: world.logDirectory }), 'herkos')).id;
  }

  async function create(
    sandbox: string,
    script = 'sleep',
    changes: Partial<ContainerConfig> = {},
  ): Promise<string> {
    return (await pods.createContainer(ctx, sandbox, containerConfig(script, changes))).id;
  }

  async function start(
    sandbox: string,
    script = 'sleep',
    changes: Partial<ContainerConfig> = {},
  ): Promise<string> {
    const id = await create(sandbox, script, changes);
    await pods.startContainer(ctx, id);
    return id;
  }

  async function expectClass(promise: Promise<unknown>, wanted: string, text?: RegExp): Promise<void> {
    const error = await rejection(promise);
    expect(classOf(error)).to.equal(wanted);
    if (text !== undefined) expect(messageOf(error)).to.match(text);
  }

  describe('sandboxes', () => {
    it('echo what was asked for, and say how they came to be', async () => {
      const config = sandboxConfig();
      const record = await pods.runSandbox(ctx, config, 'herkos');
      expect(record.config).to.deep.equal(config);
      expect(record.runtimeHandler).to.equal('herkos');
      expect(record.network?.ips).to.deep.equal(['10.1.2.3', 'fd00::3']);
      expect(BigInt(record.createdAt) > 0n).to.equal(true);
      expect(record.timings.map((one) => one.phase)).to.include.members(['vm', 'network', 'guest', 'total']);
      const facts = await pods.describeSandbox(record.id);
      expect(facts).to.include.keys('vm', 'timings', 'guest');
      expect(() => JSON.stringify(facts)).not.to.throw();
      const { guest, nics } = world.vm(record.id);
      expect(nics).to.deep.equal(['02:00:00:00:00:01']);
      expect(guest.setup?.hosts).to.match(/10\.1\.2\.3\tbox\n/);
    });

    it('are found by id and by unique prefix', async () => {
      const [one, two] = [await run(), await run()];
      expect(pods.sandbox(one.slice(0, 20)).id).to.equal(one);
      expect(pods.sandbox(two).id).to.equal(two);
      expect(() => pods.sandbox('')).to.throw(/there is no pod sandbox/);
      expect(() => pods.sandbox('zz')).to.throw(/there is no pod sandbox/);
    });

    it('refuse a reserved name, and free it when removed', async () => {
      const config = sandboxConfig();
      const both = await Promise.allSettled([
        pods.runSandbox(ctx, config, ''),
        pods.runSandbox(ctx, config, ''),
      ]);
      expect(both.map((one) => one.status).sort()).to.deep.equal(['fulfilled', 'rejected']);
      await expectClass(pods.runSandbox(ctx, config, ''), 'AlreadyExists', /is reserved/);
      const [only] = pods.sandboxes();
      await pods.removeSandbox(ctx, only?.id ?? '');
      await pods.runSandbox(ctx, config, '');
    });

    it('refuse the namespaces of the node, and unknown handlers', async () => {
      const options = sandboxConfig().namespaceOptions;
      for (const change of [{ network: 'NODE' }, { pid: 'NODE' }, { ipc: 'NODE' }] as const)
        await expectClass(
          pods.runSandbox(ctx, sandboxConfig({ namespaceOptions: { ...options, ...change } }), ''),
          'InvalidArgument',
          /RuntimeClass/,
        );
      await expectClass(pods.runSandbox(ctx, sandboxConfig(), 'runc'), 'InvalidArgument', /runc/);
      await expectClass(
        pods.runSandbox(ctx, sandboxConfig({ logDirectory: '/var/log/../x' }), ''),
        'InvalidArgument',
      );
      await expectClass(
        pods.runSandbox(ctx, sandboxConfig({ hostname: 'a\nb' }), ''),
        'InvalidArgument',
        /hostname/,
      );
      expect(daemon.calls.filter((call) => call === 'acquire')).to.deep.equal([]);
    });

    it('stop and go again and again, known or not', async () => {
      const id = await run();
      await Promise.all([pods.stopSandbox(ctx, id), pods.stopSandbox(ctx, id)]);
      await pods.stopSandbox(ctx, id);
      expect(daemon.calls.filter((call) => call === 'destroyGone')).to.have.length(1);
      await Promise.all([pods.removeSandbox(ctx, id), pods.removeSandbox(ctx, id)]);
      await pods.removeSandbox(ctx, id);
      await pods.stopSandbox(ctx, 'nobody');
      await pods.stopContainer(ctx, 'nobody', 1);
      await pods.removeContainer(ctx, 'nobody');
    });

    it('take their containers along when they stop, with the true exit codes', async () => {
      const id = await run();
      const [running, ended] = [
        await start(id, 'echo last words; sleep', { logPath: 'a' }),
        await start(id, 'exit 7'),
      ];
      const created = await create(id);
      await eventually(() => pods.container(ended).phase === 'exited');
      await pods.stopSandbox(ctx, id);
      expect(pods.container(running).exit).to.include({ code: 137, reason: 'Error' });
      expect(pods.container(ended).exit).to.include({ code: 7 });
      expect(pods.container(created)).to.include({ phase: 'exited', startedAt: '0' });
      expect(await readFile(join(world.logDirectory, 'a'), 'utf8')).to.match(/last words\n$/);
      await expectClass(pods.createContainer(ctx, id, containerConfig('sleep')), 'FailedPrecondition');
      await expectClass(pods.startContainer(ctx, created), 'FailedPrecondition');
      await expectClass(pods.createContainer(ctx, 'nobody', containerConfig('sleep')), 'NotFound');
    });

    it('are NOTREADY at once when the VM dies, and everything of them is given back', async () => {
      const id = await run();
      const container = await start(id);
      const events: string[] = [];
      daemon.pods.listen((event) => events.push(`${event.kind} ${event.change}`));
      world.vm(id).die('qemu: out of luck');
      await eventually(() => pods.sandbox(id).phase !== 'ready');
      expect(pods.container(container)).to.include({ phase: 'exited' });
      expect(pods.container(container).exit).to.include({ code: 255, reason: 'Unknown' });
      expect(pods.sandbox(id).failure).to.match(/out of luck/);
      expect(events).to.deep.equal(['sandbox stopped', 'container stopped']);
      await eventually(() => pods.sandbox(id).phase === 'notready');
      expect(world.networks.size + world.vms.size).to.equal(0);
    });

    it('wake whoever waits for something of them when the VM dies', async () => {
      const id = await run();
      const container = await start(id, 'trap');
      const stop = pods.stopContainer(ctx, container, 3_600);
      daemon.fail('guest.exec', 'hang');
      const exec = rejection(pods.execSync(ctx, container, ['true'], 0));
      daemon.fail('guest.createContainer', 'hang');
      const creation = rejection(create(id));
      await eventually(() => daemon.calls.filter((call) => call === 'guest.createContainer').length === 2);
      world.vm(id).die();
      await stop;
      expect(classOf(await exec)).to.equal('Unavailable');
      expect(classOf(await creation)).to.equal('Unavailable');
      expect(pods.containers()).to.have.length(1);
    });

    it('outlive a lost connection, and the ends that happened meanwhile are seen', async () => {
      const id = await run();
      const container = await start(id, 'echo one; sleep', { logPath: 'a' });
      const { guest } = world.vm(id);
      world.vm(id).dropConnections();
      guest.container(container).stdout.write('two\n');
      guest.container(container).end(5);
      await eventually(() => pods.container(container).phase === 'exited');
      expect(pods.container(container).exit).to.include({ code: 5 });
      expect(await readFile(join(world.logDirectory, 'a'), 'utf8')).to.match(/one\n\S+ stdout F two\n$/);
    });
  });

  describe('containers', () => {
    it('are what the request and the image say', async () => {
      const id = await run();
      const config = containerConfig('sleep', {
        logPath: 'c/0.log',
        labels: { a: 'b' },
        stopSignal: 'SIGUSR1',
      });
      const record = await pods.createContainer(ctx, id, config);
      expect(record.config).to.deep.equal(config);
      expect(record).to.include({ phase: 'created', stopSignal: 10, startedAt: '0', finishedAt: '0' });
      expect(record.logPath).to.equal(join(world.logDirectory, 'c/0.log'));
      expect(record.imageRef).to.match(/^docker\.io\/library\/busybox@sha256:/);
      const { request } = world.vm(id).guest.container(record.id);
      expect(request.layers).to.have.length(1);
      expect(world.vm(id).plugged.get(record.id)).to.have.length(2);
      const disk = await stat(join(world.stateDirectory, 'disks', `${record.id}.ext4`));
      expect(disk.size).to.equal(64 * 1024 * 1024);
    });

    it('refuse what they cannot be', async () => {
      const id = await run();
      const mount = {
        containerPath: '/data',
        hostPath: '/srv',
        readonly: false,
        selinuxRelabel: false,
        propagation: 'PRIVATE',
        recursiveReadOnly: false,
        image: '',
        imageSubPath: '',
      } as const;
      const bad: readonly [Partial<ContainerConfig>, string, RegExp][] = [
        [{ mounts: [mount] }, 'Unimplemented', /\/srv at \/data/],
        [{ image: 'missing' }, 'NotFound', /missing/],
        [{ logPath: '../../etc/passwd' }, 'InvalidArgument', /log_path/],
        [{ metadata: { name: '', attempt: 0 } }, 'InvalidArgument', /name/],
        [{ security: { ...testSecurity, runAsGroup: 5 } }, 'InvalidArgument', /run_as_group/],
        [{ stopSignal: 'SIGNOPE' }, 'InvalidArgument', /SIGNOPE/],
      ];
      for (const [change, errorClass, text] of bad)
        await expectClass(pods.createContainer(ctx, id, containerConfig('sleep', change)), errorClass, text);
      expect(daemon.calls).not.to.include('container.put');
    });

    it('have their names for themselves', async () => {
      const id = await run();
      const config = containerConfig('sleep');
      const { id: first } = await pods.createContainer(ctx, id, config);
      await expectClass(pods.createContainer(ctx, id, config), 'AlreadyExists', /is reserved/);
      await pods.removeContainer(ctx, first);
      await pods.createContainer(ctx, id, config);
    });

    it('start once', async () => {
      const id = await run();
      const container = await start(id);
      await expectClass(pods.startContainer(ctx, container), 'FailedPrecondition', /only once/);
      await pods.stopContainer(ctx, container, 0);
      await expectClass(pods.startContainer(ctx, container), 'FailedPrecondition');
      await expectClass(pods.startContainer(ctx, 'nobody'), 'NotFound');
    });

    it('end with the conventional reasons', async () => {
      const id = await run();
      const [good, bad, hungry, lying] = [await start(id), await start(id), await start(id), await start(id)];
      const { guest } = world.vm(id);
      guest.container(good).end(0);
      guest.container(bad).end(9);
      guest.container(hungry).end(137, true);
      guest.container(lying).end(-4_000_000);
      await eventually(() => pods.containers().every((one) => one.phase === 'exited'));
      expect(pods.container(good).exit).to.include({ code: 0, reason: 'Completed' });
      expect(pods.container(bad).exit).to.include({ code: 9, reason: 'Error' });
      expect(pods.container(hungry).exit).to.include({ code: 137, reason: 'OOMKilled' });
      expect(pods.container(lying).exit).to.include({ code: 255 });
      for (const { startedAt, finishedAt } of pods.containers())
        expect(BigInt(finishedAt) >= BigInt(startedAt)).to.equal(true);
    });

    it('stop by their signal, and are EXITED when that returns', async () => {
      const id = await run();
      const container = await start(id);
      await pods.stopContainer(ctx, container, 60);
      expect(world.vm(id).guest.container(container).signals).to.deep.equal([15]);
      expect(pods.container(container)).to.include({ phase: 'exited' });
      expect(pods.container(container).exit).to.include({ code: 143 });
      await pods.stopContainer(ctx, container, 60);
    });

    it('are killed when they do not listen, at once when the timeout is 0', async () => {
      const id = await run();
      const [deaf, sudden] = [await start(id, 'trap'), await start(id, 'trap')];
      await pods.stopContainer(ctx, deaf, 0.02);
      expect(world.vm(id).guest.container(deaf).signals).to.deep.equal([15, 9]);
      await pods.stopContainer(ctx, sudden, 0);
      expect(world.vm(id).guest.container(sudden).signals).to.deep.equal([9]);
    });

    it('obey the shortest of several timeouts', async () => {
      const id = await run();
      const container = await start(id, 'trap');
      const patient = pods.stopContainer(ctx, container, 3_600);
      await eventually(() => world.vm(id).guest.container(container).signals.length === 1);
      await pods.stopContainer(ctx, container, 0.01);
      await patient;
      expect(world.vm(id).guest.container(container).signals).to.deep.equal([15, 9]);
    });

    it('go on stopping when the caller has left', async () => {
      const id = await run();
      const container = await start(id, 'trap');
      const caller = withTimeout(ctx, 5, 'the request');
      await expectClass(pods.stopContainer(caller, container, 0.05), 'DeadlineExceeded');
      await eventually(() => pods.container(container).phase === 'exited');
    });

    it('that were never started can be stopped and removed', async () => {
      const id = await run();
      const container = await create(id);
      await pods.stopContainer(ctx, container, 5);
      expect(pods.container(container).exit).to.include({ code: 137 });
      await pods.removeContainer(ctx, container);
      expect(() => pods.container(container)).to.throw(/there is no container/);
      expect(world.vm(id).guest.containers.size + world.vm(id).plugged.size).to.equal(0);
    });

    it('are killed and removed while they run, however many ask', async () => {
      const id = await run();
      const container = await start(id);
      await Promise.all([pods.removeContainer(ctx, container), pods.removeContainer(ctx, container)]);
      await pods.removeContainer(ctx, container);
      expect(pods.containers()).to.deep.equal([]);
      expect(pods.sandbox(id).phase).to.equal('ready');
    });

    it('of a hung guest still stop: the VM is killed', async () => {
      const id = await run();
      const container = await start(id);
      world.vm(id).guest.frozen = true;
      await pods.stopContainer(ctx, container, 0.01);
      expect(pods.container(container).phase).to.equal('exited');
      expect(pods.sandbox(id).failure).to.match(/did not end within/);
      await eventually(() => pods.sandbox(id).phase === 'notready');
      await pods.removeContainer(ctx, container);
      expect(world.vms.size).to.equal(0);
    });

    it('of a hung guest still go with their pod', async () => {
      const id = await run();
      await start(id);
      world.vm(id).guest.frozen = true;
      await pods.removeSandbox(ctx, id);
      expect(world.vms.size + world.containers.size + world.holds.size).to.equal(0);
    });
  });

  describe('logs', () => {
    it('are made at the start, and go on in a new file after a rotation', async () => {
      const id = await run();
      const container = await start(id, 'sleep', { logPath: 'c/0.log' });
      const path = join(world.logDirectory, 'c/0.log');
      expect((await stat(path)).mode & 0o777).to.equal(0o640);
      await rename(path, `${path}.1`);
      await pods.reopenLog(ctx, container);
      world.vm(id).guest.container(container).stdout.write('new\n');
      await eventually(async () => (await readFile(path, 'utf8')).endsWith(' stdout F new\n'));
      expect(await readFile(`${path}.1`, 'utf8')).to.equal('');
      await pods.stopContainer(ctx, container, 0);
      await expectClass(pods.reopenLog(ctx, container), 'FailedPrecondition');
      await expectClass(pods.reopenLog(ctx, 'nobody'), 'NotFound');
    });

    it('that cannot be written do not hold up the end or the removal of a container', async () => {
      const id = await run();
      const container = await start(id, 'sleep', { logPath: 'a' });
      for (let n = 0; n < 1000; n += 1) daemon.fail('file.append');
      world.vm(id).guest.container(container).stdout.write('lost on a full disk\n');
      await pods.stopContainer(ctx, container, 0);
      expect(pods.container(container).phase).to.equal('exited');
      await pods.removeContainer(ctx, container);
      await pods.removeSandbox(ctx, id);
    });
  });

  describe('exec', () => {
    it('runs as the container does', async () => {
      const id = await run();
      world.imageFiles.set('/etc/passwd', 'app:x:1000:1000::/:/bin/sh\n');
      const envs = [{ key: 'FROM_POD', valueBase64: Buffer.from('yes').toString('base64') }];
      const security = { ...testSecurity, runAsUsername: 'app' };
      const container = await start(id, 'sleep', { envs, workingDir: '/srv', security, tty: true });
      world.execResult = { exitCode: 3, stdout: Buffer.from('out'), stderr: Buffer.from('err') };
      const result = await pods.execSync(ctx, container, ['id', '-u'], 5);
      expect(result).to.include({ exitCode: 3 });
      expect(world.execs[0]?.process).to.deep.include({
        args: ['id', '-u'],
        cwd: '/srv',
        terminal: false,
        user: { uid: 1000, gid: 1000, additionalGids: [1000] },
      });
      expect((world.execs[0]?.process as { env: string[] }).env).to.include.members([
        'FROM_IMAGE=1',
        'FROM_POD=yes',
      ]);
    });

    it('says DeadlineExceeded when the time is up, and what was wrong otherwise', async () => {
      const id = await run();
      const container = await start(id);
      daemon.fail('guest.exec', 'hang');
      await expectClass(
        pods.execSync(ctx, container, ['sleep'], 0.02),
        'DeadlineExceeded',
        /the command took/,
      );
      await expectClass(pods.execSync(ctx, container, [], 1), 'InvalidArgument');
      await expectClass(pods.execSync(ctx, 'nobody', ['true'], 1), 'NotFound');
      await pods.stopContainer(ctx, container, 0);
      await expectClass(pods.execSync(ctx, container, ['true'], 1), 'FailedPrecondition');
    });
  });

  it('answers lists of a thousand pods from memory', async () => {
    const id = await run();
    await create(id);
    const [sandbox] = world.sandboxes.values();
    const [container] = world.containers.values();
    if (sandbox === undefined || container === undefined) throw new Error('there is nothing to copy');
    for (let n = 1; n <= 1000; n += 1) {
      const copyId = n.toString(16).padStart(64, '0');
      world.sandboxes.set(copyId, { ...sandbox, id: copyId, phase: 'notready' });
      world.containers.set(copyId, { ...container, id: copyId, sandboxId: copyId, phase: 'exited' });
    }
    await daemon.kill();
    const next = await world.daemon();
    const before = next.calls.length;
    expect(next.pods.sandboxes()).to.have.length(1001);
    expect(next.pods.containers()).to.have.length(1001);
    await wait(0);
    expect(next.calls.length).to.equal(before);
    await next.pods.close();
  });
});

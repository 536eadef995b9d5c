/** What the kubelet relies on of containers (cri-behaviour §1.3, 1.5, 1.7-1.10). */
import { expect } from 'chai';
import { readFile, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { background, withTimeout } from '../../../lib/base/context.js';
import type { ContainerConfig } from '../../../lib/model/container.js';
import { containerConfig, testSecurity } from '../../fakes/pod-configs.js';
import { PodHarness, expectClass } from '../../fakes/pod-harness.js';
import { eventually } from '../../tools/eventually.js';

const ctx = background();

describe('containers of a pod', function () {
  this.timeout(20_000);
  let h: PodHarness;

  beforeEach(async () => {
    h = await PodHarness.create();
  });

  afterEach(async () => {
    await h.close();
  });

  describe('containers', () => {
    it('are what the request and the image say', async () => {
      const id = await h.run();
      const config = containerConfig('sleep', {
        logPath: 'c/0.log',
        labels: { a: 'b' },
        stopSignal: 'SIGUSR1',
      });
      const record = await h.pods.createContainer(ctx, id, config);
      expect(record.config).to.deep.equal(config);
      expect(record).to.include({ phase: 'created', stopSignal: 10, startedAt: '0', finishedAt: '0' });
      expect(record.logPath).to.equal(join(h.world.logDirectory, 'c/0.log'));
      expect(record.imageRef).to.match(/^docker\.io\/library\/busybox@sha256:/);
      const { request } = h.world.vm(id).guest.container(record.id);
      expect(request.layers).to.have.length(1);
      expect(h.world.vm(id).plugged.get(record.id)).to.have.length(2);
      const disk = await stat(join(h.world.stateDirectory, 'disks', `${record.id}.ext4`));
      expect(disk.size).to.equal(64 * 1024 * 1024);
    });

    it('refuse what they cannot be', async () => {
      const id = await h.run();
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
        await expectClass(
          h.pods.createContainer(ctx, id, containerConfig('sleep', change)),
          errorClass,
          text,
        );
      expect(h.daemon.calls).not.to.include('container.put');
    });

    it('have their names for themselves', async () => {
      const id = await h.run();
      const config = containerConfig('sleep');
      const { id: first } = await h.pods.createContainer(ctx, id, config);
      await expectClass(h.pods.createContainer(ctx, id, config), 'AlreadyExists', /is reserved/);
      await h.pods.removeContainer(ctx, first);
      await h.pods.createContainer(ctx, id, config);
    });

    it('start once', async () => {
      const id = await h.run();
      const container = await h.start(id);
      await expectClass(h.pods.startContainer(ctx, container), 'FailedPrecondition', /only once/);
      await h.pods.stopContainer(ctx, container, 0);
      await expectClass(h.pods.startContainer(ctx, container), 'FailedPrecondition');
      await expectClass(h.pods.startContainer(ctx, 'nobody'), 'NotFound');
    });

    it('end with the conventional reasons', async () => {
      const id = await h.run();
      const [good, bad, hungry, lying] = [
        await h.start(id),
        await h.start(id),
        await h.start(id),
        await h.start(id),
      ];
      const { guest } = h.world.vm(id);
      guest.container(good).end(0);
      guest.container(bad).end(9);
      guest.container(hungry).end(137, true);
      guest.container(lying).end(-4_000_000);
      await eventually(() => h.pods.containers().every((one) => one.phase === 'exited'));
      expect(h.pods.container(good).exit).to.include({ code: 0, reason: 'Completed' });
      expect(h.pods.container(bad).exit).to.include({ code: 9, reason: 'Error' });
      expect(h.pods.container(hungry).exit).to.include({ code: 137, reason: 'OOMKilled' });
      expect(h.pods.container(lying).exit).to.include({ code: 255 });
      for (const { startedAt, finishedAt } of h.pods.containers())
        expect(BigInt(finishedAt) >= BigInt(startedAt)).to.equal(true);
    });

    it('stop by their signal, and are EXITED when that returns', async () => {
      const id = await h.run();
      const container = await h.start(id);
      await h.pods.stopContainer(ctx, container, 60);
      expect(h.world.vm(id).guest.container(container).signals).to.deep.equal([15]);
      expect(h.pods.container(container)).to.include({ phase: 'exited' });
      expect(h.pods.container(container).exit).to.include({ code: 143 });
      await h.pods.stopContainer(ctx, container, 60);
    });

    it('are killed when they do not listen, at once when the timeout is 0', async () => {
      const id = await h.run();
      const [deaf, sudden] = [await h.start(id, 'trap'), await h.start(id, 'trap')];
      await h.pods.stopContainer(ctx, deaf, 0.02);
      expect(h.world.vm(id).guest.container(deaf).signals).to.deep.equal([15, 9]);
      await h.pods.stopContainer(ctx, sudden, 0);
      expect(h.world.vm(id).guest.container(sudden).signals).to.deep.equal([9]);
    });

    it('obey the shortest of several timeouts', async () => {
      const id = await h.run();
      const container = await h.start(id, 'trap');
      const patient = h.pods.stopContainer(ctx, container, 3_600);
      await eventually(() => h.world.vm(id).guest.container(container).signals.length === 1);
      await h.pods.stopContainer(ctx, container, 0.01);
      await patient;
      expect(h.world.vm(id).guest.container(container).signals).to.deep.equal([15, 9]);
    });

    it('are killed in time though the clock is set back meanwhile', async () => {
      const id = await h.run();
      const container = await h.start(id, 'trap');
      const { now } = Date;
      const stopping = h.pods.stopContainer(ctx, container, 0.05);
      try {
        Date.now = () => now() - 3_600_000;
        await stopping;
      } finally {
        Date.now = now;
      }
      expect(h.world.vm(id).guest.container(container).signals).to.deep.equal([15, 9]);
    });

    it('go on stopping when the caller has left', async () => {
      const id = await h.run();
      const container = await h.start(id, 'trap');
      const caller = withTimeout(ctx, 5, 'the request');
      await expectClass(h.pods.stopContainer(caller, container, 0.05), 'DeadlineExceeded');
      await eventually(() => h.pods.container(container).phase === 'exited');
    });

    it('that were never started can be stopped and removed', async () => {
      const id = await h.run();
      const container = await h.create(id);
      await h.pods.stopContainer(ctx, container, 5);
      expect(h.pods.container(container).exit).to.include({ code: 137 });
      await h.pods.removeContainer(ctx, container);
      expect(() => h.pods.container(container)).to.throw(/there is no container/);
      expect(h.world.vm(id).guest.containers.size + h.world.vm(id).plugged.size).to.equal(0);
    });

    it('are killed and removed while they run, however many ask', async () => {
      const id = await h.run();
      const container = await h.start(id);
      await Promise.all([h.pods.removeContainer(ctx, container), h.pods.removeContainer(ctx, container)]);
      await h.pods.removeContainer(ctx, container);
      expect(h.pods.containers()).to.deep.equal([]);
      expect(h.pods.sandbox(id).phase).to.equal('ready');
    });

    it('of a hung guest still stop: the VM is killed', async () => {
      const id = await h.run();
      const container = await h.start(id);
      h.world.vm(id).guest.frozen = true;
      await h.pods.stopContainer(ctx, container, 0.01);
      expect(h.pods.container(container).phase).to.equal('exited');
      expect(h.pods.sandbox(id).failure).to.match(/did not end within/);
      await eventually(() => h.pods.sandbox(id).phase === 'notready');
      await h.pods.removeContainer(ctx, container);
      expect(h.world.vms.size).to.equal(0);
    });

    it('of a hung guest still go with their pod', async () => {
      const id = await h.run();
      await h.start(id);
      h.world.vm(id).guest.frozen = true;
      await h.pods.removeSandbox(ctx, id);
      expect(h.world.vms.size + h.world.containers.size + h.world.holds.size).to.equal(0);
    });
  });

  describe('logs', () => {
    it('are made at the start, and go on in a new file after a rotation', async () => {
      const id = await h.run();
      const container = await h.start(id, 'sleep', { logPath: 'c/0.log' });
      const path = join(h.world.logDirectory, 'c/0.log');
      expect((await stat(path)).mode & 0o777).to.equal(0o640);
      await rename(path, `${path}.1`);
      await h.pods.reopenLog(ctx, container);
      h.world.vm(id).guest.container(container).stdout.write('new\n');
      await eventually(async () => (await readFile(path, 'utf8')).endsWith(' stdout F new\n'));
      expect(await readFile(`${path}.1`, 'utf8')).to.equal('');
      await h.pods.stopContainer(ctx, container, 0);
      await expectClass(h.pods.reopenLog(ctx, container), 'FailedPrecondition');
      await expectClass(h.pods.reopenLog(ctx, 'nobody'), 'NotFound');
    });

    it('that cannot be written do not hold up the end or the removal of a container', async () => {
      const id = await h.run();
      const container = await h.start(id, 'sleep', { logPath: 'a' });
      for (let n = 0; n < 1000; n += 1) h.daemon.fail('file.append');
      h.world.vm(id).guest.container(container).stdout.write('lost on a full disk\n');
      await h.pods.stopContainer(ctx, container, 0);
      expect(h.pods.container(container).phase).to.equal('exited');
      await h.pods.removeContainer(ctx, container);
      await h.pods.removeSandbox(ctx, id);
    });
  });

  describe('exec', () => {
    it('runs as the container does', async () => {
      const id = await h.run();
      h.world.imageFiles.set('/etc/passwd', 'app:x:1000:1000::/:/bin/sh\n');
      const envs = [{ key: 'FROM_POD', valueBase64: Buffer.from('yes').toString('base64') }];
      const security = { ...testSecurity, runAsUsername: 'app' };
      const container = await h.start(id, 'sleep', { envs, workingDir: '/srv', security, tty: true });
      h.world.execResult = { exitCode: 3, stdout: Buffer.from('out'), stderr: Buffer.from('err') };
      const result = await h.pods.execSync(ctx, container, ['id', '-u'], 5);
      expect(result).to.include({ exitCode: 3 });
      expect(h.world.execs[0]?.process).to.deep.include({
        args: ['id', '-u'],
        cwd: '/srv',
        terminal: false,
        user: { uid: 1000, gid: 1000, additionalGids: [1000] },
      });
      expect((h.world.execs[0]?.process as { env: string[] }).env).to.include.members([
        'FROM_IMAGE=1',
        'FROM_POD=yes',
      ]);
    });

    it('says DeadlineExceeded when the time is up, and what was wrong otherwise', async () => {
      const id = await h.run();
      const container = await h.start(id);
      h.daemon.fail('guest.exec', 'hang');
      await expectClass(
        h.pods.execSync(ctx, container, ['sleep'], 0.02),
        'DeadlineExceeded',
        /the command took/,
      );
      await expectClass(h.pods.execSync(ctx, container, [], 1), 'InvalidArgument');
      await expectClass(h.pods.execSync(ctx, 'nobody', ['true'], 1), 'NotFound');
      await h.pods.stopContainer(ctx, container, 0);
      await expectClass(h.pods.execSync(ctx, container, ['true'], 1), 'FailedPrecondition');
    });
  });
});

/** What the kubelet relies on of sandboxes (cri-behaviour §1.3-1.6, 1.10). */
import { expect } from 'chai';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';

import { background, withCancel } from '../../../lib/base/context.js';
import { classOf } from '../../../lib/base/errors.js';
import { containerConfig, sandboxConfig } from '../../fakes/pod-configs.js';
import { PodHarness, expectClass } from '../../fakes/pod-harness.js';
import { Incarnation } from '../../fakes/pod-world.js';
import { eventually } from '../../tools/eventually.js';
import { rejection } from '../../tools/rejection.js';

const ctx = background();

describe('pod sandboxes', function () {
  this.timeout(20_000);
  let h: PodHarness;

  beforeEach(async () => {
    h = await PodHarness.create();
  });

  afterEach(async () => {
    await h.close();
  });

  it('echo what was asked for, and say how they came to be', async () => {
    const config = sandboxConfig();
    const record = await h.pods.runSandbox(ctx, config, 'herkos');
    expect(record.config).to.deep.equal(config);
    expect(record.runtimeHandler).to.equal('herkos');
    expect(record.network?.ips).to.deep.equal(['10.1.2.3', 'fd00::3']);
    expect(BigInt(record.createdAt) > 0n).to.equal(true);
    expect(record.timings.map((one) => one.phase)).to.include.members(['vm', 'network', 'guest', 'total']);
    const facts = await h.pods.describeSandbox(record.id);
    expect(facts).to.include.keys('vm', 'timings', 'guest');
    expect(() => JSON.stringify(facts)).not.to.throw();
    const { guest, nics } = h.world.vm(record.id);
    expect(nics).to.deep.equal(['02:00:00:00:00:01']);
    expect(guest.setup?.hosts).to.match(/10\.1\.2\.3\tbox\n/);
  });

  it('are found by id and by unique prefix', async () => {
    const [one, two] = [await h.run(), await h.run()];
    expect(h.pods.sandbox(one.slice(0, 20)).id).to.equal(one);
    expect(h.pods.sandbox(two).id).to.equal(two);
    expect(() => h.pods.sandbox('')).to.throw(/there is no pod sandbox/);
    expect(() => h.pods.sandbox('zz')).to.throw(/there is no pod sandbox/);
  });

  it('are not taken for unknown when a prefix fits several: they would seem to be stopped and removed', async () => {
    const seen = new Set<string>();
    let twice: string | undefined;
    // There are sixteen digits.
    for (let i = 0; i < 17 && twice === undefined; i++) {
      const digit = (await h.run()).slice(0, 1);
      if (seen.has(digit)) twice = digit;
      seen.add(digit);
    }
    const prefix = twice ?? '';
    for (const done of [h.pods.stopSandbox(ctx, prefix), h.pods.removeSandbox(ctx, prefix)])
      await expectClass(done, 'InvalidArgument', /begins the ids of 2 pod sandboxes; write more of the id/);
  });

  it('refuse a reserved name, and free it when removed', async () => {
    const config = sandboxConfig();
    const both = await Promise.allSettled([
      h.pods.runSandbox(ctx, config, ''),
      h.pods.runSandbox(ctx, config, ''),
    ]);
    expect(both.map((one) => one.status).sort()).to.deep.equal(['fulfilled', 'rejected']);
    await expectClass(h.pods.runSandbox(ctx, config, ''), 'AlreadyExists', /is reserved/);
    const [only] = h.pods.sandboxes();
    await h.pods.removeSandbox(ctx, only?.id ?? '');
    await h.pods.runSandbox(ctx, config, '');
  });

  it('refuse the namespaces of the node, and unknown handlers', async () => {
    const options = sandboxConfig().namespaceOptions;
    for (const change of [{ network: 'NODE' }, { pid: 'NODE' }, { ipc: 'NODE' }] as const)
      await expectClass(
        h.pods.runSandbox(ctx, sandboxConfig({ namespaceOptions: { ...options, ...change } }), ''),
        'InvalidArgument',
        /RuntimeClass/,
      );
    await expectClass(h.pods.runSandbox(ctx, sandboxConfig(), 'runc'), 'InvalidArgument', /runc/);
    await expectClass(
      h.pods.runSandbox(ctx, sandboxConfig({ logDirectory: '/var/log/../x' }), ''),
      'InvalidArgument',
    );
    await expectClass(
      h.pods.runSandbox(ctx, sandboxConfig({ hostname: 'a\nb' }), ''),
      'InvalidArgument',
      /hostname/,
    );
    expect(h.daemon.calls.filter((call) => call === 'acquire')).to.deep.equal([]);
  });

  it('wait for their turn when many start at once, and leave nothing when they are given up there', async () => {
    const acquired = (): number => h.daemon.calls.filter((call) => call === 'acquire').length;
    const hanging = Array.from({ length: 4 }, () => withCancel(background()));
    hanging.forEach(() => {
      h.daemon.fail('acquire', 'hang');
    });
    const stuck = hanging.map(async (one) => rejection(h.pods.runSandbox(one, sandboxConfig(), '')));
    await eventually(() => acquired() === 4);
    const givenUp = withCancel(background());
    const waiting = [h.run(), rejection(h.pods.runSandbox(givenUp, sandboxConfig(), ''))] as const;
    await wait(50);
    expect(acquired()).to.equal(4);
    givenUp.cancel();
    await waiting[1];
    expect(acquired()).to.equal(4);
    hanging[0]?.cancel();
    const id = await waiting[0];
    for (const one of hanging) one.cancel();
    await Promise.all(stuck);
    expect(h.pods.sandboxes().map((one) => one.id)).to.deep.equal([id]);
    expect(h.world.sandboxes.size).to.equal(1);
  });

  it('start though the network of as many as may start at a time hangs', async () => {
    const hung = withCancel(background());
    for (let count = 0; count < 4; count += 1) h.daemon.fail('attach', 'hang');
    const starts = Array.from({ length: 4 }, async () =>
      rejection(h.pods.runSandbox(hung, sandboxConfig(), '')),
    );
    await eventually(() => h.daemon.calls.filter((call) => call === 'attach').length === 4);
    const id = await h.run();
    hung.cancel();
    await Promise.all(starts);
    expect(h.pods.sandboxes().map((one) => one.id)).to.deep.equal([id]);
  });

  it('stop and go again and again, known or not', async () => {
    const id = await h.run();
    await Promise.all([h.pods.stopSandbox(ctx, id), h.pods.stopSandbox(ctx, id)]);
    await h.pods.stopSandbox(ctx, id);
    expect(h.daemon.calls.filter((call) => call === 'destroyGone')).to.have.length(1);
    await Promise.all([h.pods.removeSandbox(ctx, id), h.pods.removeSandbox(ctx, id)]);
    await h.pods.removeSandbox(ctx, id);
    await h.pods.stopSandbox(ctx, 'nobody');
    await h.pods.stopContainer(ctx, 'nobody', 1);
    await h.pods.removeContainer(ctx, 'nobody');
  });

  it('take their containers along when they stop, with the true exit codes', async () => {
    const id = await h.run();
    const [running, ended] = [
      await h.start(id, 'echo last words; sleep', { logPath: 'a' }),
      await h.start(id, 'exit 7'),
    ];
    const created = await h.create(id);
    await eventually(() => h.pods.container(ended).phase === 'exited');
    await h.pods.stopSandbox(ctx, id);
    expect(h.pods.container(running).exit).to.include({ code: 137, reason: 'Error' });
    expect(h.pods.container(ended).exit).to.include({ code: 7 });
    expect(h.pods.container(created)).to.include({ phase: 'exited', startedAt: '0' });
    expect(await readFile(join(h.world.logDirectory, 'a'), 'utf8')).to.match(/last words\n$/);
    await expectClass(h.pods.createContainer(ctx, id, containerConfig('sleep')), 'FailedPrecondition');
    await expectClass(h.pods.startContainer(ctx, created), 'FailedPrecondition');
    await expectClass(h.pods.createContainer(ctx, 'nobody', containerConfig('sleep')), 'NotFound');
  });

  it('are NOTREADY at once when the VM dies, and everything of them is given back', async () => {
    const id = await h.run();
    const container = await h.start(id);
    const events: string[] = [];
    h.daemon.pods.listen((event) => events.push(`${event.kind} ${event.change}`));
    h.world.vm(id).die('qemu: out of luck');
    await eventually(() => h.pods.sandbox(id).phase !== 'ready');
    expect(h.pods.container(container)).to.include({ phase: 'exited' });
    expect(h.pods.container(container).exit).to.include({ code: 255, reason: 'Unknown' });
    expect(h.pods.sandbox(id).failure).to.match(/out of luck/);
    expect(h.world.observer.count('VM of a pod ended')).to.equal(1);
    expect(events).to.deep.equal(['sandbox stopped', 'container stopped']);
    await eventually(() => h.pods.sandbox(id).phase === 'notready');
    expect(h.world.networks.size + h.world.vms.size).to.equal(0);
  });

  it('wake whoever waits for something of them when the VM dies', async () => {
    const id = await h.run();
    const container = await h.start(id, 'trap');
    const stop = h.pods.stopContainer(ctx, container, 3_600);
    h.daemon.fail('guest.exec', 'hang');
    const exec = rejection(h.pods.execSync(ctx, container, ['true'], 0));
    h.daemon.fail('guest.createContainer', 'hang');
    const creation = rejection(h.create(id));
    await eventually(() => h.daemon.calls.filter((call) => call === 'guest.createContainer').length === 2);
    h.world.vm(id).die();
    await stop;
    expect(classOf(await exec)).to.equal('Unavailable');
    expect(classOf(await creation)).to.equal('Unavailable');
    expect(h.pods.containers()).to.have.length(1);
  });

  it('are given up when their agent stays away', async () => {
    const id = await h.run();
    const container = await h.start(id);
    h.world.vm(id).guest.frozen = true;
    h.world.vm(id).dropConnections();
    await eventually(() => h.pods.sandbox(id).phase === 'notready');
    expect(h.pods.sandbox(id).failure).to.match(/could not be reached for 300 ms/);
    expect(h.pods.container(container).exit).to.include({ code: 255, reason: 'Unknown' });
    expect(h.world.vms.size + h.world.networks.size).to.equal(0);
  });

  it('whose guest hangs when the daemon starts again are given up too', async () => {
    const id = await h.run();
    h.world.vm(id).guest.frozen = true;
    await h.daemon.kill();
    const next = await h.world.daemon();
    expect(next.pods.sandbox(id).phase).to.equal('notready');
    expect(next.pods.sandbox(id).failure).to.match(/could not be taken over/);
    await next.pods.close();
  });

  it('are listed while they are recovered, and requests wait until it is known what became of them', async () => {
    const id = await h.run();
    const container = await h.start(id);
    await h.daemon.kill();
    const { guest } = h.world.vm(id);
    guest.frozen = true;
    const next = h.world.incarnation();
    await next.pods.load();
    expect(next.pods.sandbox(id).phase).to.equal('ready');
    const recovered = next.pods.recover();
    const stopped = next.pods.stopContainer(ctx, container, 0);
    guest.frozen = false;
    h.world.vm(id).dropConnections();
    await Promise.all([recovered, stopped]);
    expect(next.pods.container(container).phase).to.equal('exited');
    await next.pods.close();
  });

  describe('whose guests hang when the daemon starts again', () => {
    let hung: string[];
    let healthy: string;
    let next: Incarnation;
    let recovered: Promise<void>;

    beforeEach(async () => {
      h.world.deadlines = { ...h.world.deadlines, agentLostMs: 60_000 };
      hung = [];
      for (let count = 0; count < 20; count += 1) hung.push(await h.run());
      healthy = await h.run();
      await h.start(healthy);
      await h.daemon.kill();
      Incarnation.closeConnections(h.world);
      for (const id of hung) h.world.vm(id).guest.frozen = true;
      next = h.world.incarnation();
      await next.pods.load();
      recovered = next.pods.recover();
    });

    afterEach(async () => {
      await next.pods.close();
      await recovered;
    });

    it('hold up no other pod', async () => {
      const [container] = next.pods.containers();
      await next.pods.execSync(ctx, container?.id ?? '', ['true'], 0);
      await next.pods.stopSandbox(ctx, healthy);
      expect(next.calls).to.include('guest.shutdown');
    });

    it('are stopped and removed without them', async () => {
      const [stopped = '', removed = '', left = ''] = hung;
      const gaveUp = withCancel(background());
      const leaving = rejection(next.pods.stopSandbox(gaveUp, left));
      gaveUp.cancel();
      await leaving;
      await Promise.all([next.pods.stopSandbox(ctx, stopped), next.pods.removeSandbox(ctx, removed)]);
      expect(next.pods.sandbox(stopped))
        .to.include({ phase: 'notready' })
        .and.not.to.have.property('failure');
      expect(() => next.pods.sandbox(removed)).to.throw(/there is no pod sandbox/);
      await eventually(() => next.pods.sandbox(left).phase === 'notready');
      for (const id of [stopped, removed, left]) expect(h.world.vms.has(id)).to.equal(false);
      expect(h.world.networks.size).to.equal(hung.length + 1 - 3);
    });
  });

  it('of which nobody knows any more are swept again and again until they are gone', async () => {
    const [lost, lostToo] = [await h.run(), await h.run()];
    await h.daemon.kill();
    h.world.sandboxes.clear();
    const next = h.world.incarnation();
    await next.pods.load();
    next.fail('sweep.remove');
    next.fail('sweep.remove', 'before', 1);
    await next.pods.recover();
    expect([h.world.vms.has(lost), h.world.vms.has(lostToo)]).to.deep.equal([true, false]);
    await eventually(() => h.world.vms.size === 0);
    await next.pods.close();
  });

  it('may start though something that is swept hangs', async () => {
    await h.run();
    await h.daemon.kill();
    h.world.sandboxes.clear();
    h.world.deadlines = { ...h.world.deadlines, sweepMs: 50 };
    const next = h.world.incarnation();
    await next.pods.load();
    next.fail('sweep.remove', 'hang');
    const recovered = next.pods.recover();
    await next.pods.runSandbox(ctx, sandboxConfig(), '');
    await recovered;
    await next.pods.close();
  });

  it('are neither begun nor stopped before the daemon has begun to recover', async () => {
    const id = await h.run();
    await h.daemon.kill();
    const next = h.world.incarnation();
    await next.pods.load();
    const begun = next.pods.runSandbox(ctx, sandboxConfig(), '');
    const stopped = next.pods.stopSandbox(ctx, id);
    await wait(50);
    expect(next.calls.filter((call) => call === 'acquire' || call === 'destroyGone')).to.deep.equal([]);
    await next.pods.recover();
    await stopped;
    expect(next.calls).to.include('guest.shutdown');
    expect(next.pods.sandbox((await begun).id).phase).to.equal('ready');
    expect([...h.world.vms.keys()]).to.deep.equal([(await begun).id]);
    await next.pods.close();
  });

  it('outlive a lost connection, and the ends that happened meanwhile are seen', async () => {
    const id = await h.run();
    const container = await h.start(id, 'echo one; sleep', { logPath: 'a' });
    const { guest } = h.world.vm(id);
    h.world.vm(id).dropConnections();
    guest.container(container).stdout.write('two\n');
    guest.container(container).end(5);
    await eventually(() => h.pods.container(container).phase === 'exited');
    expect(h.pods.container(container).exit).to.include({ code: 5 });
    expect(await readFile(join(h.world.logDirectory, 'a'), 'utf8')).to.match(/one\n\S+ stdout F two\n$/);
  });
  it('answers lists of a thousand pods from memory', async () => {
    const id = await h.run();
    await h.create(id);
    const [sandbox] = h.world.sandboxes.values();
    const [container] = h.world.containers.values();
    if (sandbox === undefined || container === undefined) throw new Error('there is nothing to copy');
    for (let n = 1; n <= 1000; n += 1) {
      const copyId = n.toString(16).padStart(64, '0');
      h.world.sandboxes.set(copyId, { ...sandbox, id: copyId, phase: 'notready' });
      h.world.containers.set(copyId, { ...container, id: copyId, sandboxId: copyId, phase: 'exited' });
    }
    await h.daemon.kill();
    const next = await h.world.daemon();
    // The last of what is done for the pod that was taken over.
    await eventually(() => next.calls.includes('resize'));
    const before = next.calls.length;
    expect(next.pods.sandboxes()).to.have.length(1001);
    expect(next.pods.containers()).to.have.length(1001);
    await wait(0);
    expect(next.calls.length).to.equal(before);
    await next.pods.close();
  });
});

/** Each call to the world fails once, in each way: the verb undoes everything and says so in one error. */
import { expect } from 'chai';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { background, withTimeout } from '../../../lib/base/context.js';
import { HerkosError } from '../../../lib/base/errors.js';
import { containerConfig, sandboxConfig } from '../../fakes/pod-configs.js';
import type { FailureKind, Incarnation } from '../../fakes/pod-world.js';
import { FakeWorld, testDeadlines } from '../../fakes/pod-world.js';
import { eventually } from '../../tools/eventually.js';
import { rejection } from '../../tools/rejection.js';

const ctx = background();
const kinds: readonly FailureKind[] = ['before', 'after', 'hang', 'stuck'];
/** Short, because what hangs is waited for; the calls that work take a millisecond. */
const shortMs = 150;

describe('a step that fails', function () {
  this.timeout(60_000);
  let world: FakeWorld;
  let daemon: Incarnation;

  async function start(): Promise<void> {
    world = await FakeWorld.create();
    world.deadlines = {
      ...testDeadlines,
      vmMs: shortMs,
      bootMs: shortMs,
      networkMs: shortMs,
      plugMs: shortMs,
      guestMs: shortMs,
      diskMs: shortMs,
      settleMs: 10,
      undoMs: shortMs,
      destroyMs: shortMs,
      stopContainersMs: shortMs,
      shutdownMs: shortMs,
      killMs: shortMs,
      drainMs: shortMs,
    };
    daemon = await world.daemon();
  }

  async function end(): Promise<void> {
    await daemon.pods.close();
    await world.remove();
  }

  for (const call of ['acquire', 'attach', 'connect', 'resume', 'plugNic', 'guest.setupPod'])
    for (const kind of kinds)
      it(`RunPodSandbox, ${call} fails: ${kind}`, async () => {
        await start();
        try {
          const config = sandboxConfig();
          daemon.fail(call, kind);
          const error = await rejection(daemon.pods.runSandbox(ctx, config, ''));
          expect(error).to.be.instanceOf(HerkosError);
          await eventually(() => world.vms.size + world.networks.size + world.sandboxes.size === 0);
          // The name is free at once, and the second try works.
          const { id } = await daemon.pods.runSandbox(ctx, config, '');
          expect(daemon.pods.sandboxes().map((one) => one.id)).to.deep.equal([id]);
        } finally {
          await end();
        }
      });

  for (const call of ['hold', 'mkfs', 'plugLayers', 'plugDisk', 'guest.createContainer', 'readFile'])
    for (const kind of kinds)
      it(`CreateContainer, ${call} fails: ${kind}`, async () => {
        if (['readFile'].includes(call) && (kind === 'hang' || kind === 'stuck')) return;
        await start();
        try {
          const { id } = await daemon.pods.runSandbox(ctx, sandboxConfig(), '');
          const config = containerConfig('sleep');
          daemon.fail(call, kind);
          const error = await rejection(daemon.pods.createContainer(ctx, id, config));
          expect(error).to.be.instanceOf(HerkosError);
          const vm = world.vm(id);
          expect(world.holds.size + world.containers.size + vm.plugged.size).to.equal(0);
          expect(vm.guest.containers.size).to.equal(0);
          expect(await readdir(join(world.stateDirectory, 'disks'))).to.deep.equal([]);
          await daemon.pods.createContainer(ctx, id, config);
          expect(daemon.pods.containers()).to.have.length(1);
        } finally {
          await end();
        }
      });

  for (const n of [0, 1, 2])
    it(`RunPodSandbox, put ${String(n + 1)} fails`, async () => {
      await start();
      try {
        daemon.fail('sandbox.put', 'before', n);
        await rejection(daemon.pods.runSandbox(ctx, sandboxConfig(), ''));
        expect(world.vms.size + world.networks.size + world.sandboxes.size).to.equal(0);
        expect(daemon.pods.sandboxes()).to.deep.equal([]);
      } finally {
        await end();
      }
    });

  for (const call of ['guest.startContainer', 'file.open', 'file.writeCursor', 'container.put'])
    it(`StartContainer, ${call} fails: the container has ended with StartError`, async () => {
      await start();
      try {
        const { id } = await daemon.pods.runSandbox(
          ctx,
          sandboxConfig({ logDirectory: world.logDirectory }),
          '',
        );
        const config = containerConfig('sleep', { logPath: 'a.log' });
        const container = await daemon.pods.createContainer(ctx, id, config);
        daemon.fail(call, 'before', call === 'container.put' ? 1 : 0);
        await rejection(daemon.pods.startContainer(ctx, container.id));
        const record = daemon.pods.container(container.id);
        expect(record).to.include({ phase: 'exited', startedAt: '0' });
        expect(record.exit).to.include({ code: 128, reason: 'StartError' });
        expect(BigInt(record.finishedAt) >= BigInt(record.createdAt)).to.equal(true);
        await daemon.pods.removeContainer(ctx, container.id);
        expect(world.containers.size + world.holds.size).to.equal(0);
      } finally {
        await end();
      }
    });

  for (const call of [
    'kill',
    'destroyGone',
    'detachGone',
    'guest.shutdown',
    'guest.signalContainer',
    'sandbox.put',
  ])
    for (const kind of ['before', 'after', 'hang'] as const)
      it(`StopPodSandbox, ${call} fails: ${kind}; the next one finishes it`, async () => {
        await start();
        try {
          const { id } = await daemon.pods.runSandbox(ctx, sandboxConfig(), '');
          const container = await daemon.pods.createContainer(ctx, id, containerConfig('sleep'));
          await daemon.pods.startContainer(ctx, container.id);
          if (call === 'sandbox.put' && kind === 'hang') return;
          daemon.fail(call, kind);
          await daemon.pods.stopSandbox(ctx, id).catch(() => undefined);
          await daemon.pods.stopSandbox(ctx, id);
          expect(daemon.pods.sandbox(id).phase).to.equal('notready');
          expect(daemon.pods.container(container.id).phase).to.equal('exited');
          expect(world.vms.size + world.networks.size).to.equal(0);
          await daemon.pods.removeSandbox(ctx, id);
          expect(world.sandboxes.size + world.containers.size + world.holds.size).to.equal(0);
        } finally {
          await end();
        }
      });

  it('is undone when the caller leaves, whichever step that is', async () => {
    for (let count = 1; ; count += 1) {
      await start();
      try {
        const caller = withTimeout(ctx, 60_000, 'the request');
        const before = daemon.calls.length;
        const run = daemon.pods.runSandbox(caller, sandboxConfig(), '');
        const outcome = run.then(
          () => 'done',
          () => 'undone',
        );
        await eventually(() => daemon.calls.length >= before + count || daemon.pods.sandboxes().length > 0);
        caller.cancel();
        if ((await outcome) === 'done') return;
        expect(world.vms.size + world.networks.size + world.sandboxes.size).to.equal(0);
      } finally {
        await end();
      }
    }
  });
});

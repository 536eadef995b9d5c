/**
 * Kills the daemon after every single call it makes to the world, for each verb, and lets the next daemon
 * recover: nothing may be left without an owner (R2), and what is listed must be true (R1).
 */
import { expect } from 'chai';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { background } from '../../../lib/base/context.js';
import { MIB } from '../../../lib/base/units.js';
import type { ContainerRecord } from '../../../lib/model/container.js';
import { hasExited } from '../../../lib/model/container-state.js';
import { toRemoving } from '../../../lib/model/sandbox-state.js';
import type { LinuxResources } from '../../../lib/model/resources.js';
import type { VmShape } from '../../../lib/model/vm.js';
import { limitsOf } from '../../../lib/pod/spec/resources.js';
import { sizeFor } from '../../../lib/vm/sizing.js';
import { MemoryLogger } from '../../fakes/cni-logger.js';
import { containerConfig, sandboxConfig } from '../../fakes/pod-configs.js';
import type { FakeWorld } from '../../fakes/pod-world.js';
import { Incarnation, FakeWorld as World, testSizing } from '../../fakes/pod-world.js';
import { eventually } from '../../tools/eventually.js';

/** What a verb starts from, and the verb. */
interface Story {
  readonly name: string;
  prepare(daemon: Incarnation): Promise<readonly string[]>;
  run(daemon: Incarnation, ids: readonly string[]): Promise<unknown>;
}

const ctx = background();

async function runPod(daemon: Incarnation): Promise<string> {
  return (await daemon.pods.runSandbox(ctx, sandboxConfig(), '')).id;
}

function limits(mib: number, cpus: number): LinuxResources {
  return { memoryLimitBytes: mib * MIB, cpuQuotaUs: cpus * 100_000, cpuPeriodUs: 100_000 };
}

async function createIn(
  daemon: Incarnation,
  sandbox: string,
  script = 'sleep',
  resources: LinuxResources = {},
): Promise<string> {
  return (await daemon.pods.createContainer(ctx, sandbox, containerConfig(script, { resources }))).id;
}

async function startIn(
  daemon: Incarnation,
  sandbox: string,
  resources: LinuxResources = {},
): Promise<string> {
  const id = await createIn(daemon, sandbox, 'sleep', resources);
  await daemon.pods.startContainer(ctx, id);
  return id;
}

const stories: readonly Story[] = [
  {
    name: 'RunPodSandbox',
    prepare: () => Promise.resolve([]),
    run: (daemon) => runPod(daemon),
  },
  {
    name: 'CreateContainer',
    prepare: async (daemon) => [await runPod(daemon)],
    run: (daemon, [sandbox = '']) => createIn(daemon, sandbox),
  },
  {
    name: 'RunPodSandbox of a pod that needs more than VMs boot with',
    prepare: () => Promise.resolve([]),
    run: (daemon) => daemon.pods.runSandbox(ctx, sandboxConfig({ resources: limits(1024, 2) }), ''),
  },
  {
    name: 'CreateContainer of one that needs more room',
    prepare: async (daemon) => [await runPod(daemon)],
    run: (daemon, [sandbox = '']) => createIn(daemon, sandbox, 'sleep', limits(1024, 3)),
  },
  {
    name: 'UpdateContainerResources, up',
    prepare: async (daemon) => {
      const sandbox = await runPod(daemon);
      return [sandbox, await startIn(daemon, sandbox, limits(512, 1))];
    },
    run: (daemon, [, container = '']) => daemon.pods.updateContainer(ctx, container, limits(1024, 4)),
  },
  {
    name: 'UpdateContainerResources, down',
    prepare: async (daemon) => {
      const sandbox = await runPod(daemon);
      return [sandbox, await startIn(daemon, sandbox, limits(1024, 4))];
    },
    run: (daemon, [, container = '']) => daemon.pods.updateContainer(ctx, container, limits(512, 1)),
  },
  {
    name: 'UpdatePodSandboxResources',
    prepare: async (daemon) => [await runPod(daemon)],
    run: (daemon, [sandbox = '']) => daemon.pods.updateSandbox(ctx, sandbox, { resources: limits(2048, 2) }),
  },
  {
    name: 'RemoveContainer of one that needed more room',
    prepare: async (daemon) => {
      const sandbox = await runPod(daemon);
      return [sandbox, await startIn(daemon, sandbox, limits(1024, 2))];
    },
    run: (daemon, [, container = '']) => daemon.pods.removeContainer(ctx, container),
  },
  {
    name: 'StartContainer',
    prepare: async (daemon) => {
      const sandbox = await runPod(daemon);
      return [sandbox, await createIn(daemon, sandbox)];
    },
    run: (daemon, [, container = '']) => daemon.pods.startContainer(ctx, container),
  },
  {
    name: 'StopContainer',
    prepare: async (daemon) => {
      const sandbox = await runPod(daemon);
      return [sandbox, await startIn(daemon, sandbox)];
    },
    run: (daemon, [, container = '']) => daemon.pods.stopContainer(ctx, container, 30),
  },
  {
    name: 'RemoveContainer',
    prepare: async (daemon) => {
      const sandbox = await runPod(daemon);
      return [sandbox, await startIn(daemon, sandbox)];
    },
    run: (daemon, [, container = '']) => daemon.pods.removeContainer(ctx, container),
  },
  {
    name: 'StopPodSandbox',
    prepare: async (daemon) => {
      const sandbox = await runPod(daemon);
      return [sandbox, await startIn(daemon, sandbox), await createIn(daemon, sandbox)];
    },
    run: (daemon, [sandbox = '']) => daemon.pods.stopSandbox(ctx, sandbox),
  },
  {
    name: 'RemovePodSandbox',
    prepare: async (daemon) => {
      const sandbox = await runPod(daemon);
      return [sandbox, await startIn(daemon, sandbox), await createIn(daemon, sandbox)];
    },
    run: (daemon, [sandbox = '']) => daemon.pods.removeSandbox(ctx, sandbox),
  },
];

/** Everything that exists has exactly the owner that the records name, and the other way round. */
async function expectConsistent(world: FakeWorld, daemon: Incarnation): Promise<void> {
  const { pods } = daemon;
  for (const record of [...world.sandboxes.values(), ...world.containers.values()])
    expect(['ready', 'notready', 'created', 'running', 'exited']).to.include(record.phase);
  expect(pods.sandboxes().map((one) => one.id)).to.have.members([...world.sandboxes.keys()]);
  expect(pods.containers().map((one) => one.id)).to.have.members([...world.containers.keys()]);
  const ready = pods.sandboxes().filter((one) => one.phase === 'ready');
  const readyIds = ready.map((one) => one.id);
  expect([...world.vms.keys()], 'VMs').to.have.members(readyIds);
  expect([...world.networks], 'networks').to.have.members(readyIds);
  const containers = pods.containers();
  const containerIds = containers.map((one) => one.id);
  expect([...world.holds.keys()], 'holds').to.have.members(containerIds);
  const disks = await readdir(join(world.stateDirectory, 'disks'));
  expect(disks, 'disks').to.have.members(containerIds.map((id) => `${id}.ext4`));
  const running = containers.filter((one) => one.phase === 'running').map((one) => one.id);
  const cursors = await readdir(join(world.stateDirectory, 'cursors'));
  expect(cursors.filter((name) => !running.includes(name.slice(0, 64))).length, 'cursors').to.be.at.most(
    containers.length,
  );
  for (const name of cursors) expect(containerIds).to.include(name.slice(0, 64));
  for (const { id, sandboxId, phase, exit } of containers) {
    if (!readyIds.includes(sandboxId)) {
      expect(phase, 'in a stopped pod').to.equal('exited');
      expect(exit?.code).to.be.greaterThan(0);
      continue;
    }
    // An end that the guest knows is reported as soon as its output is in the log.
    await eventually(
      () => world.vm(sandboxId).guest.containers.get(id)?.phase === daemon.pods.container(id).phase,
    );
    expect([...world.vm(sandboxId).plugged.keys()]).to.include(id);
  }
  for (const id of readyIds) {
    const inPod = containers.filter((one) => one.sandboxId === id).map((one) => one.id);
    expect([...world.vm(id).guest.containers.keys()], 'guest containers').to.have.members(inPod);
    expect([...world.vm(id).plugged.keys()], 'plugged').to.have.members(inPod);
    await expectSize(world, daemon, id);
  }
}

/** The VM has the size that the records ask for, and each container the limits that it is said to have. */
async function expectSize(world: FakeWorld, daemon: Incarnation, id: string): Promise<void> {
  const vm = world.vm(id);
  const { resources } = daemon.pods.sandbox(id).config;
  const all = daemon.pods.containers().filter((one) => one.sandboxId === id);
  const living = all.filter((one) => !hasExited(one));
  const sizeOf = (containers: readonly ContainerRecord[]): VmShape =>
    sizeFor(testSizing, {
      ...(resources === undefined ? {} : { resources }),
      containers: containers.map(({ config }) => ({
        name: config.metadata.name,
        resources: config.resources,
      })),
    });
  // What a container had that ended lately may still be there.
  const [least, most] = [sizeOf(living), sizeOf(all)];
  await eventually(
    () =>
      vm.size.memoryMib >= least.memoryMib &&
      vm.size.memoryMib <= Math.max(vm.shape.memoryMib, most.memoryMib) &&
      vm.size.vcpus >= least.vcpus &&
      vm.size.vcpus <= most.vcpus &&
      vm.guest.cpus === vm.size.vcpus,
  );
  for (const record of living) {
    expect(record).not.to.have.property('changingTo');
    const { memory, cpu } = vm.guest.container(record.id).limits;
    expect({ memory, cpu }).to.deep.include(limitsOf(record.config.resources));
  }
}

/** What a kubelet does in the end: everything must go away. */
async function expectRemovable(world: FakeWorld, daemon: Incarnation): Promise<void> {
  for (const { id } of daemon.pods.sandboxes()) {
    await daemon.pods.stopSandbox(ctx, id);
    await daemon.pods.removeSandbox(ctx, id);
  }
  expect(world.vms.size + world.networks.size + world.holds.size).to.equal(0);
  expect(world.sandboxes.size + world.containers.size).to.equal(0);
  expect(await readdir(join(world.stateDirectory, 'disks'))).to.deep.equal([]);
  expect(await readdir(join(world.stateDirectory, 'cursors'))).to.deep.equal([]);
}

describe('kill -9 of the daemon', function () {
  this.timeout(60_000);
  for (const story of stories)
    it(`after each call of ${story.name}`, async () => {
      let isFinished = false;
      for (let count = 1; !isFinished; count += 1) {
        const world = await World.create();
        try {
          const first = await world.daemon();
          const ids = await story.prepare(first);
          const died = first.dieAfter(count).then(() => false);
          isFinished = await Promise.race([died, story.run(first, ids).then(() => true)]);
          await first.kill();
          Incarnation.closeConnections(world);
          const second = await world.daemon();
          await expectConsistent(world, second);
          await expectRemovable(world, second);
          await second.pods.close();
        } finally {
          await world.remove();
        }
      }
    });

  it('keeps a container running, and its exit code when it ended meanwhile', async () => {
    const world = await World.create();
    try {
      const first = await world.daemon();
      const sandbox = await runPod(first);
      const [stays, ends] = [await startIn(first, sandbox), await startIn(first, sandbox)];
      await first.kill();
      Incarnation.closeConnections(world);
      world.vm(sandbox).guest.container(ends).end(42);
      const second = await world.daemon();
      await second.pods.stopContainer(ctx, ends, 0);
      expect(second.pods.container(ends).exit).to.include({ code: 42, reason: 'Error' });
      expect(second.pods.container(stays).phase).to.equal('running');
      await second.pods.close();
    } finally {
      await world.remove();
    }
  });

  for (const phase of ['creating', 'created', 'starting', 'running', 'exited', 'removing'] as const)
    it(`removes a pod whose container is ${phase} on the disk, because its end could not be written`, async () => {
      const world = await World.create();
      try {
        const first = await world.daemon();
        const sandbox = await runPod(first);
        const container = await startIn(first, sandbox);
        await first.pods.stopSandbox(ctx, sandbox);
        await first.kill();
        const records = [first.pods.sandbox(sandbox), first.pods.container(container)] as const;
        world.sandboxes.set(sandbox, toRemoving(records[0]));
        world.containers.set(container, { ...records[1], phase });
        const second = await world.daemon();
        expect(second.pods.sandboxes()).to.deep.equal([]);
        await expectRemovable(world, second);
        await second.pods.close();
      } finally {
        await world.remove();
      }
    });

  it('is followed by a line that says how many pods went on', async () => {
    const world = await World.create();
    try {
      const log = new MemoryLogger();
      const first = await world.daemon(log);
      const [lives, dies] = [await runPod(first), await runPod(first)];
      for (const sandbox of [lives, dies]) await startIn(first, sandbox);
      await createIn(first, lives);
      await first.kill();
      Incarnation.closeConnections(world);
      world.vm(dies).die();
      const second = await world.daemon(log);
      // The first daemon found nothing, and says nothing.
      expect(log.lines.filter(({ fields }) => 'podsFound' in fields)).to.deep.equal([
        {
          level: 'info',
          message: 'the pods of the earlier daemon were looked after',
          fields: { podsFound: 2, podsTakenOver: 1, containersTakenOver: 2 },
        },
      ]);
      await second.pods.close();
    } finally {
      await world.remove();
    }
  });

  it('tells that a VM died while nobody looked', async () => {
    const world = await World.create();
    try {
      const first = await world.daemon();
      const sandbox = await runPod(first);
      const container = await startIn(first, sandbox);
      await first.kill();
      world.vm(sandbox).die();
      const second = await world.daemon();
      expect(second.pods.sandbox(sandbox)).to.include({ phase: 'notready' });
      expect(second.pods.sandbox(sandbox).failure).to.match(/ended while the daemon was not running/);
      expect(second.pods.container(container).exit).to.include({ code: 255, reason: 'Unknown' });
      expect(world.networks.size + world.vms.size).to.equal(0);
      await second.pods.close();
    } finally {
      await world.remove();
    }
  });
});

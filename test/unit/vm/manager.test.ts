import { expect } from 'chai';

import { background, withCancel } from '../../../lib/base/context.js';
import { HerkosError } from '../../../lib/base/errors.js';
import { Gate } from '../../../lib/base/gate.js';
import { newId } from '../../../lib/base/ids.js';
import { silentLogger } from '../../../lib/base/logger.js';
import type { VmRecord } from '../../../lib/model/vm.js';
import type { VmPlace } from '../../../lib/pod/ports.js';
import { VmManager } from '../../../lib/vm/manager.js';
import type { CgroupFactory, NetnsFactory, VmStore } from '../../../lib/vm/ports.js';
import type { TemplateFiles } from '../../../lib/vm/template/template-files.js';
import { FakeHost, FakeVmDriver } from '../../fakes/vm-driver.js';
import { eventually } from '../../tools/eventually.js';
import { vmRoomParts, vmSettingsFor } from '../../tools/vm-room.js';
import { rejection } from '../../tools/rejection.js';

const ctx = background();
const shape = { vcpus: 1, memoryMib: 256 };
const uidCount = 4;

/** The node: what stays when the daemon dies. Every change can be the last one before that. */
class Node {
  readonly host = new FakeHost();
  readonly records = new Map<string, VmRecord>();
  readonly namespaces = new Map<string, number>();
  readonly cgroups = new Set<string>();
  /** Changes still allowed; then the daemon is dead and nothing it does has any effect. */
  changesLeft = Number.POSITIVE_INFINITY;
  readonly log: string[] = [];
  /** Namespaces that cannot be deleted, and how. */
  readonly broken = new Map<string, () => Promise<void>>();

  change(what: string, body: () => void): Promise<void> {
    if (this.changesLeft <= 0) return new Promise(() => undefined);
    this.changesLeft -= 1;
    this.log.push(what);
    body();
    return Promise.resolve();
  }

  manager(driver = new FakeVmDriver({ host: this.host }), files?: TemplateFiles): VmManager {
    const parts = vmRoomParts(vmSettingsFor('/nowhere', { instance: 'test', uidFirst: 5000, uidCount }));
    return new VmManager({
      ...parts,
      files: files ?? parts.files,
      driver: this.#dying(driver),
      netns: this.#netns(),
      cgroups: this.#cgroups(),
      store: this.#store(),
      logger: silentLogger,
    });
  }

  /** Everything that could leak. */
  left(): string[] {
    return [
      ...this.records.keys(),
      ...this.namespaces.keys(),
      ...this.cgroups,
      ...this.host.processes.keys(),
    ];
  }

  #dying(driver: FakeVmDriver): FakeVmDriver {
    const start = driver.start.bind(driver);
    driver.start = async (startCtx, spec) => {
      await this.change('start', () => undefined);
      const vm = await start(startCtx, spec);
      await this.change('started', () => undefined);
      return vm;
    };
    return driver;
  }

  #store(): VmStore {
    return {
      loadAll: () => Promise.resolve([...this.records.values()]),
      put: (record) => this.change('put', () => this.records.set(record.id, record)),
      delete: (id) => this.change('delete', () => this.records.delete(id)),
    };
  }

  #netns(): NetnsFactory {
    return {
      create: async (_, name, uid) => {
        await this.change('netns', () => this.namespaces.set(name, uid));
        return { path: `/run/netns/${name}`, tap: 'tap0' };
      },
      deleteGone: (_, name) =>
        this.broken.get(name)?.() ?? this.change('netns gone', () => this.namespaces.delete(name)),
      list: () => Promise.resolve([...this.namespaces.keys()]),
    };
  }

  #cgroups(): CgroupFactory {
    return {
      create: async (_, parent, id) => {
        await this.change('cgroup', () => this.cgroups.add(`${parent}/${id}`));
        return { procsFiles: [`${parent}/${id}/cgroup.procs`] };
      },
      setLimits: () => Promise.resolve(),
      enter: () => Promise.resolve(),
      deleteGone: (_, parent, id) => this.change('cgroup gone', () => this.cgroups.delete(`${parent}/${id}`)),
    };
  }
}

describe('vm manager', () => {
  let node: Node;
  let manager: VmManager;

  beforeEach(() => {
    node = new Node();
    manager = node.manager();
  });

  const request = (
    sandboxId = newId(),
  ): { sandboxId: string; shape: typeof shape; domain: string; cgroupParent: string } => ({
    sandboxId,
    shape,
    domain: 'default',
    cgroupParent: '/kubepods/pod1',
  });

  it('gives a pod a VM with everything around it, and takes all of it away', async () => {
    const wanted = request();
    const vm = await manager.acquire(ctx, wanted);
    expect(vm.record).to.include({ id: wanted.sandboxId, uid: 5000, tap: 'tap0', accelerator: 'tcg' });
    expect(vm.record.pid).to.be.greaterThan(0);
    expect(vm.netnsPath).to.equal(`/run/netns/test-${wanted.sandboxId}`);
    expect(node.records.get(wanted.sandboxId)).to.deep.equal(vm.record);
    expect(node.host.living(wanted.sandboxId)?.procsFiles).to.deep.equal([
      `/kubepods/pod1/${wanted.sandboxId}/cgroup.procs`,
    ]);
    await manager.destroyGone(ctx, wanted.sandboxId);
    await vm.exited;
    expect(node.left()).to.deep.equal([]);
    await manager.destroyGone(ctx, wanted.sandboxId);
  });

  it('never gives two living VMs the same user', async () => {
    const all = await Promise.all(Array.from({ length: uidCount }, () => manager.acquire(ctx, request())));
    expect(new Set(all.map(({ record }) => record.uid)).size).to.equal(uidCount);
    expect(await rejection(manager.acquire(ctx, request()))).to.have.property('class', 'ResourceExhausted');
    const [first] = all;
    if (first === undefined) throw new Error('no VM');
    await manager.destroyGone(ctx, first.record.id);
    expect((await manager.acquire(ctx, request())).record.uid).to.equal(first.record.uid);
    expect(await rejection(node.manager().acquire(ctx, request()))).to.have.property(
      'class',
      'ResourceExhausted',
    );
  });

  it('refuses a second VM for a sandbox and one that is too big', async () => {
    const wanted = request();
    await manager.acquire(ctx, wanted);
    expect(await rejection(manager.acquire(ctx, wanted))).to.have.property('class', 'AlreadyExists');
    const big = { ...request(), shape: { vcpus: 64, memoryMib: 256 } };
    expect(await rejection(manager.acquire(ctx, big))).to.have.property('class', 'ResourceExhausted');
    expect(node.records.size).to.equal(1);
  });

  it('leaves nothing behind when the process does not start', async () => {
    const driver = new FakeVmDriver({ host: node.host });
    driver.failStart = new HerkosError('Internal', 'no such machine');
    const error = await rejection(node.manager(driver).acquire(ctx, request()));
    expect(error).to.have.property('message', 'no such machine');
    expect(node.left()).to.deep.equal([]);
  });

  it('tells the end of a process at once', async () => {
    const vm = await manager.acquire(ctx, request());
    node.host.kill(vm.record.pid);
    expect(await vm.exited).to.have.property('signal', 'SIGKILL');
    expect(await rejection(vm.plugNic(ctx, 'm'))).to.have.property('class', 'Unavailable');
  });

  it('takes a VM over after a restart and does not find a dead one', async () => {
    const [alive, dead] = [await manager.acquire(ctx, request()), await manager.acquire(ctx, request())];
    node.host.kill(dead.record.pid);
    await manager.release();
    const next = node.manager();
    const again = await next.adopt(ctx, alive.record.id);
    expect(again?.record).to.deep.equal(alive.record);
    expect(await next.adopt(ctx, alive.record.id)).to.equal(again);
    expect(await next.adopt(ctx, dead.record.id)).to.equal(undefined);
    expect(await next.adopt(ctx, newId())).to.equal(undefined);
  });

  it('sweeps what belongs to no sandbox and keeps the rest', async () => {
    const [kept, orphan] = [await manager.acquire(ctx, request()), await manager.acquire(ctx, request())];
    node.namespaces.set('test-lost', 1);
    const lost = await manager.acquire(ctx, request());
    node.records.delete(lost.record.id);
    const next = node.manager();
    const { removed, left } = await next.sweep(ctx, new Set([kept.record.id]));
    // The lost VM's namespace goes with its process; `test-lost` has neither.
    expect(removed).to.have.length(3);
    expect(left).to.deep.equal([]);
    expect(node.host.living(kept.record.id)).not.to.equal(undefined);
    for (const { id } of [orphan.record, lost.record]) expect(node.host.living(id)).to.equal(undefined);
    expect([...node.namespaces.keys()]).to.deep.equal([kept.record.netns]);
    expect(await next.sweep(ctx, new Set([kept.record.id]))).to.deep.equal({ removed: [], left: [] });
  });

  it('sweeps the rest though something fails or hangs, and leaves what can be tried again', async () => {
    const vms = await Promise.all(Array.from({ length: uidCount }, () => manager.acquire(ctx, request())));
    const [failing, hanging, ...others] = vms.map(({ record }) => record);
    if (failing === undefined || hanging === undefined) throw new Error('no VM');
    node.broken.set(failing.netns, () => Promise.reject(new Error('busy')));
    node.broken.set(hanging.netns, () => new Promise(() => undefined));
    const { files } = vmRoomParts(vmSettingsFor('/nowhere', { instance: 'test', uidFirst: 5000, uidCount }));
    files.load = () => Promise.reject(new Error('too many open files'));
    const next = node.manager(undefined, files);
    const life = withCancel(ctx);
    const sweeping = next.sweep(life, new Set());
    await settled();
    expect([...node.records.keys()]).to.have.members([failing.id, hanging.id]);
    life.cancel();
    const { removed, left } = await sweeping;
    expect(removed).to.have.length(others.length);
    expect(left).to.have.length(3);
    node.broken.clear();
    files.load = () => Promise.resolve([]);
    for (const { remove } of left) await remove(ctx);
    expect(node.left()).to.deep.equal([]);
  });

  it('does not give a number away twice when a sweep that hung ends late', async () => {
    const { record } = await manager.acquire(ctx, request());
    const next = node.manager();
    let goOn: (() => void) | undefined;
    node.broken.set(record.netns, () => new Promise((resolve) => (goOn = resolve)));
    const life = withCancel(ctx);
    const sweeping = next.sweep(life, new Set());
    await eventually(() => goOn !== undefined);
    life.cancel();
    const { left } = await sweeping;
    node.broken.clear();
    await left[0]?.remove(ctx);
    const taken = await Promise.all(Array.from({ length: uidCount }, () => next.acquire(ctx, request())));
    goOn?.();
    await settled();
    expect(await rejection(next.acquire(ctx, request()))).to.have.property('class', 'ResourceExhausted');
    expect(new Set(taken.map((vm) => vm.record.uid)).size).to.equal(uidCount);
  });

  it('is swept clean wherever a daemon died while it made or removed a VM', async () => {
    const whole = new Node();
    const wanted = request();
    await whole.manager().acquire(ctx, wanted);
    const changes = whole.log.length;
    for (let after = 0; after <= changes; after += 1) {
      const dying = new Node();
      dying.changesLeft = after;
      void dying.manager().acquire(ctx, wanted);
      await settled();
      dying.changesLeft = Number.POSITIVE_INFINITY;
      await dying.manager().sweep(ctx, new Set());
      expect(dying.left(), `died after ${dying.log.slice(0, after).join(', ')}`).to.deep.equal([]);
    }
    for (let after = 0; after <= 4; after += 1) {
      const dying = new Node();
      const before = dying.manager();
      await before.acquire(ctx, wanted);
      dying.changesLeft = after;
      void before.destroyGone(ctx, wanted.sandboxId);
      await settled();
      dying.changesLeft = Number.POSITIVE_INFINITY;
      await dying.manager().sweep(ctx, new Set());
      expect(dying.left()).to.deep.equal([]);
    }
  });

  it('takes a place away when whoever uses it has let go', async () => {
    const driver = new FakeVmDriver({ host: node.host });
    driver.failStart = new HerkosError('Internal', 'no such machine');
    const [ending, ended] = [new Gate(), new Gate()];
    const places: VmPlace[] = [];
    const placeUser = {
      begin: (place: VmPlace) => void places.push(place),
      end: async () => {
        ending.open();
        await ended.opened;
      },
    };
    const failed = rejection(node.manager(driver).acquire(ctx, { ...request(), placeUser }));
    await ending.opened;
    await settled();
    expect([...node.namespaces.keys()].map((name) => `/run/netns/${name}`)).to.deep.equal(
      places.map(({ netnsPath }) => netnsPath),
    );
    ended.open();
    expect(await failed).to.have.property('message', 'no such machine');
    expect(node.left()).to.deep.equal([]);
  });

  it('adopts the process of a daemon that died before it could record its pid', async () => {
    const wanted = request();
    // put, netns, cgroup, put, start; then the last put is lost.
    node.changesLeft = 5;
    void manager.acquire(ctx, wanted);
    await settled();
    node.changesLeft = Number.POSITIVE_INFINITY;
    expect(node.records.get(wanted.sandboxId)).to.have.property('pid', 0);
    const vm = await node.manager().adopt(ctx, wanted.sandboxId);
    expect(vm?.record.pid).to.equal(node.host.living(wanted.sandboxId)?.pid);
    expect(node.records.get(wanted.sandboxId)).to.deep.equal(vm?.record);
  });
});

/** Lets every step that can go on go on: the fakes need no more than turns of the event loop. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1)
    await new Promise<void>((resolve) => {
      setImmediate(resolve);
    });
}

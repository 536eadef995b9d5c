import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { newId } from '../../../lib/base/ids.js';
import { silentLogger } from '../../../lib/base/logger.js';
import type { VmRecord } from '../../../lib/model/vm.js';
import { Machines } from '../../../lib/vm/machines.js';
import type { MachineRequest } from '../../../lib/vm/machines.js';
import { FakeHost, FakeVmDriver } from '../../fakes/vm-driver.js';
import { vmSettingsFor } from '../../tools/vm-room.js';

const ctx = background();
const own = { kind: 'own' } as const;

describe('whose pages may be merged', () => {
  const host = new FakeHost();
  let records: Map<string, VmRecord>;
  let changes: number;

  beforeEach(() => {
    records = new Map();
    changes = 0;
  });

  /** A daemon, configured like this; what it leaves is found by the next. */
  async function daemon(mergeableDomains: readonly string[]): Promise<Machines> {
    const settings = vmSettingsFor('/nowhere', { instance: 'test', uidFirst: 5000, uidCount: 8 });
    const machines = new Machines({
      settings: { ...settings, mergeableDomains },
      driver: new FakeVmDriver({ host }),
      netns: {
        create: (_, name) => Promise.resolve({ path: `/run/netns/${name}`, tap: 'tap0' }),
        deleteGone: () => Promise.resolve(),
        list: () => Promise.resolve([]),
      },
      cgroups: {
        create: () => Promise.resolve({ procsFiles: [] }),
        setLimits: () => Promise.resolve(),
        enter: () => Promise.resolve(),
        deleteGone: () => Promise.resolve(),
      },
      store: {
        loadAll: () => Promise.resolve([...records.values()]),
        put: (record) => Promise.resolve(void records.set(record.id, record)),
        delete: (id) => Promise.resolve(void records.delete(id)),
      },
      logger: silentLogger,
      onChange: () => {
        changes += 1;
      },
    });
    await machines.load();
    return machines;
  }

  function request(domain: string): MachineRequest {
    const id = newId();
    const shape = { vcpus: 1, memoryMib: 256 };
    return { id, sandboxId: id, domain, shape, accelerator: 'tcg', source: 'cold', cgroupParent: '' };
  }

  it('is nobody without opting in, and only the domain that opts in', async () => {
    const without = await (await daemon([])).make(ctx, request('a'), own);
    expect(without.record.mergeable).to.equal(false);
    const machines = await daemon(['a']);
    expect((await machines.make(ctx, request('a'), own)).record.mergeable).to.equal(true);
    expect((await machines.make(ctx, request('b'), own)).record.mergeable).to.equal(false);
  });

  it('is nobody new while mergeable VMs of another domain live, which opted in before', async () => {
    const first = await (await daemon(['a'])).make(ctx, request('a'), own);
    const next = await daemon(['b']);
    expect((await next.make(ctx, request('b'), own)).record.mergeable).to.equal(false);
    // Born anew it obeys what holds now.
    await next.remake(ctx, first.record.id);
    expect(records.get(first.record.id)?.mergeable).to.equal(false);
    expect((await next.make(ctx, request('b'), own)).record.mergeable).to.equal(true);
  });

  it('stays what it was for a VM that a new daemon takes over', async () => {
    const before = await (await daemon(['a'])).make(ctx, request('a'), own);
    const next = await daemon([]);
    const adopted = await next.adopt(ctx, before.record);
    expect(adopted?.record.mergeable).to.equal(true);
    expect(next.isMergeable('b')).to.equal(false);
    await next.unmake(ctx, before.record);
    expect((await daemon(['b'])).isMergeable('b')).to.equal(true);
  });

  it('tells when VMs come and go', async () => {
    const machines = await daemon(['a']);
    const { record } = await machines.make(ctx, request('a'), own);
    expect(changes).to.equal(1);
    await machines.unmake(ctx, record);
    expect(changes).to.equal(2);
  });
});

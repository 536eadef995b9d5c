import { appendFile, mkdtemp, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { HerkosError } from '../../../lib/base/errors.js';
import { Gate } from '../../../lib/base/gate.js';
import { MIB } from '../../../lib/base/units.js';
import { newId } from '../../../lib/base/ids.js';
import type { VmRequest } from '../../../lib/pod/ports.js';
import type { VmManager } from '../../../lib/vm/manager.js';
import { FakeVmNode } from '../../fakes/vm-node.js';
import { eventually } from '../../tools/eventually.js';
import { rejection } from '../../tools/rejection.js';

const ctx = background();
const shape = { vcpus: 1, memoryMib: 128 };

function request(domain = 'default', sandboxId = newId()): VmRequest {
  return { sandboxId, shape, domain, cgroupParent: '/kubepods/pod1' };
}

describe('templates', () => {
  let directory: string;
  let node: FakeVmNode;
  let vms: VmManager;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'hk-templates-'));
    node = new FakeVmNode(directory);
    vms = node.manager();
  });

  afterEach(async () => {
    await vms.release();
    await rm(directory, { recursive: true, force: true });
  });

  const templateNames = async (): Promise<string[]> => readdir(join(directory, 'templates'));
  const only = async (): Promise<{ id: string; memory: string; state: string }> => {
    const [id = ''] = await templateNames();
    const place = join(directory, 'templates', id);
    return { id, memory: join(place, 'memory'), state: join(place, 'state') };
  };

  it('are built once, however many pods ask for one at a time', async () => {
    const all = await Promise.all(Array.from({ length: 50 }, async () => vms.acquire(ctx, request())));
    expect(all.map(({ record }) => record.source)).to.deep.equal(Array<string>(50).fill('clone'));
    expect(node.rehearsals).to.equal(1);
    expect(await templateNames()).to.have.length(1);
  });

  it('leave nothing of the VM that they were made of', async () => {
    await vms.warmUp(ctx);
    expect(await templateNames()).to.have.length(1);
    expect(node.left()).to.deep.equal([]);
  });

  it('are never shared by two domains (S4)', async () => {
    const mine = await vms.acquire(ctx, request('mine'));
    const other = await vms.acquire(ctx, request('other'));
    expect(mine.record.template?.id).not.to.equal(other.record.template?.id);
    expect(mine.record.template?.gid).not.to.equal(other.record.template?.gid);
    const owners = await Promise.all(
      (await templateNames()).map(async (name) => stat(join(directory, 'templates', name, 'memory'))),
    );
    expect(new Set(owners.map(({ gid }) => gid)).size).to.equal(2);
    for (const { mode, uid } of owners) {
      expect(mode & 0o777).to.equal(0o660);
      expect(uid).to.equal(process.getuid?.());
    }
  });

  const damages: Record<string, (place: { memory: string; state: string }) => Promise<void>> = {
    'was cut short': async ({ memory }) => truncate(memory, 4096),
    'lost its memory': async ({ memory }) => rm(memory),
    'was replaced': async ({ state }) => {
      await rm(state);
      await writeFile(state, 'state');
    },
    'lost a file': async ({ state }) => rm(state),
    'has more state than before': async ({ state }) => appendFile(state, 'x'),
  };
  for (const [name, damage] of Object.entries(damages)) {
    it(`that ${name} is refused: the pod boots cold, the next one has a new template`, async () => {
      await vms.acquire(ctx, request());
      const before = await only();
      await damage(before);
      expect((await vms.acquire(ctx, request())).record.source).to.equal('cold');
      expect((await vms.acquire(ctx, request())).record.source).to.equal('clone');
      expect((await only()).id).not.to.equal(before.id);
    });
  }

  it('that cannot be built mean cold boots, and no try for every pod', async () => {
    node.rehearse = () => Promise.reject(new HerkosError('Internal', 'the guest is broken'));
    for (let pod = 0; pod < 3; pod += 1)
      expect((await vms.acquire(ctx, request())).record.source).to.equal('cold');
    expect(node.rehearsals).to.equal(1);
    expect(await templateNames()).to.deep.equal([]);
    node.rehearse = () => Promise.resolve();
    await vms.templates.build(ctx, await vms.want(ctx, 'default'));
    expect((await vms.acquire(ctx, request())).record.source).to.equal('clone');
  });

  it('that take long to build hold no pod up for long, and are used when they are there', async () => {
    const { templates } = node.settings;
    vms = node.manager({ ...node.settings, templates: { ...templates, waitMsMax: 100 } });
    let isBooted: () => void = () => undefined;
    node.rehearse = () =>
      new Promise((resolve) => {
        isBooted = resolve;
      });
    expect((await vms.acquire(ctx, request())).record.source).to.equal('cold');
    // The build goes on.
    expect((await vms.acquire(ctx, request())).record.source).to.equal('cold');
    expect(vms.templates.builds()).to.have.length(1);
    isBooted();
    await vms.templates.settle();
    expect((await vms.acquire(ctx, request())).record.source).to.equal('clone');
    expect(node.rehearsals).to.equal(1);
  });

  it('whose guest dies in the making fail with its last words', async () => {
    node.rehearse = () => {
      for (const process of node.host.processes.values()) process.end('SIGBUS');
      return new Promise(() => undefined);
    };
    const error = await rejection(vms.templates.build(ctx, await vms.want(ctx, 'default')));
    expect(error).to.have.property('message').that.includes('the fake ended');
    expect(node.left()).to.deep.equal([]);
    expect(await templateNames()).to.deep.equal([]);
  });

  it('whose process ends before its guest runs leave no error behind', async () => {
    const start = node.driver.start.bind(node.driver);
    node.driver.start = async (step, spec) => {
      const vm = await start(step, spec);
      vm.resume = async () => {
        node.host.kill(vm.pid);
        await settled();
        throw new HerkosError('Unavailable', 'the VM has ended');
      };
      return vm;
    };
    const failed = await rejection(vms.templates.build(ctx, await vms.want(ctx, 'default')));
    expect(failed).to.have.property('message').that.contains('the fake ended');
    await settled();
  });

  it('that do not fit are not begun', async () => {
    const big = { ...node.settings.sizing, memoryMibDefault: 1 << 30, memoryMibMax: 1 << 30 };
    vms = node.manager({ ...node.settings, sizing: big });
    const error = await rejection(vms.templates.build(ctx, await vms.want(ctx, 'default')));
    expect(error).to.have.property('class', 'ResourceExhausted');
    expect(await templateNames()).to.deep.equal([]);
  });

  const withRoomFor = (count: number, idleMsMin: number): VmManager => {
    const bytesMax = count * node.settings.sizing.memoryMibDefault * MIB;
    return node.manager({ ...node.settings, templates: { ...node.settings.templates, bytesMax, idleMsMin } });
  };

  it('that nobody asks for any more make room for those of other domains', async () => {
    vms = withRoomFor(2, -1);
    await vms.acquire(ctx, request('a'));
    await vms.acquire(ctx, request('b'));
    await vms.acquire(ctx, request('a'));
    expect((await vms.acquire(ctx, request('c'))).record.source).to.equal('clone');
    expect(vms.templates.known.map(({ template }) => template.domain).sort()).to.deep.equal(['a', 'c']);
  });

  it('that are asked for stay, and another domain’s pods boot cold', async () => {
    vms = withRoomFor(1, 3_600_000);
    await vms.acquire(ctx, request('a'));
    expect((await vms.acquire(ctx, request('b'))).record.source).to.equal('cold');
    expect((await vms.acquire(ctx, request('a'))).record.source).to.equal('clone');
  });

  it('go before their successor is made where there is no room for both', async () => {
    vms = withRoomFor(1, 3_600_000);
    const first = await vms.acquire(ctx, request());
    await vms.templates.rotate(ctx, await vms.want(ctx, 'default'));
    const second = await vms.acquire(ctx, request());
    expect(second.record.source).to.equal('clone');
    expect(second.record.template?.id).not.to.equal(first.record.template?.id);
    expect(await templateNames()).to.have.length(1);
  });

  it('of an earlier daemon are used again when every byte is as it was', async () => {
    await vms.acquire(ctx, request());
    const { id } = await only();
    vms = node.manager();
    expect((await vms.acquire(ctx, request())).record.template?.id).to.equal(id);
    expect(node.rehearsals).to.equal(1);
  });

  it('of an earlier daemon with one byte changed are refused, though size and file agree', async () => {
    await vms.acquire(ctx, request());
    const { id, memory } = await only();
    await writeFile(memory, 'x', { flag: 'r+' });
    vms = node.manager();
    expect((await vms.acquire(ctx, request())).record.template?.id).not.to.equal(id);
    expect(await templateNames()).to.have.length(1);
  });

  it('of an earlier daemon are removed when they are switched off', async () => {
    const { record } = await vms.acquire(ctx, request());
    vms = node.manager({ ...node.settings, templates: { ...node.settings.templates, enabled: false } });
    await vms.sweep(ctx, new Set([record.sandboxId]));
    expect(await templateNames()).to.deep.equal([]);
    expect(node.records.get(record.id)?.template?.gid).to.equal(record.template?.gid);
    expect((await vms.acquire(ctx, request())).record.source).to.equal('cold');
  });

  it('of an earlier daemon keep their groups while they are read again', async () => {
    for (const domain of ['default', 'other']) await vms.templates.build(ctx, await vms.want(ctx, domain));
    const gids = (await vms.templates.list()).map(({ template }) => template.gid);
    await vms.release();
    vms = node.manager({ ...node.settings, templates: { ...node.settings.templates, waitMsMax: 10 } });
    const files = node.files();
    const verify = files.verify.bind(files);
    const goOn = new Gate();
    files.verify = async (step, template) => {
      await goOn.opened;
      await verify(step, template);
    };
    const pods = [await vms.acquire(ctx, request()), await vms.acquire(ctx, request())];
    goOn.open();
    expect(await vms.templates.list()).to.have.length(2);
    expect(pods.map(({ record }) => record.source)).to.deep.equal(['cold', 'cold']);
    for (const { record } of pods) expect(gids).not.to.include(record.uid);
  });

  it('that are half made, or foreign, are removed at start', async () => {
    await vms.acquire(ctx, request());
    const { id } = await only();
    await rm(join(directory, 'templates', id, 'template.json'));
    await writeFile(join(directory, 'templates', 'stray'), '');
    vms = node.manager();
    await vms.templates.list();
    expect(await templateNames()).to.deep.equal([]);
  });

  it('are built anew when the hypervisor changes', async () => {
    const first = await vms.acquire(ctx, request());
    node.driver.machine = 'machine 2';
    const second = await vms.acquire(ctx, request());
    expect(second.record.source).to.equal('clone');
    expect(second.record.template?.id).not.to.equal(first.record.template?.id);
    expect(await templateNames()).to.have.length(1);
  });

  it('are rotated after many uses, and serve until the next one is there', async () => {
    vms = node.manager({ ...node.settings, templates: { ...node.settings.templates, usesMax: 2 } });
    const first = await vms.acquire(ctx, request());
    const second = await vms.acquire(ctx, request());
    expect(second.record.template?.id).to.equal(first.record.template?.id);
    await vms.templates.settle();
    const third = await vms.acquire(ctx, request());
    expect(third.record.template?.id).not.to.equal(first.record.template?.id);
    await eventually(async () => (await templateNames()).length === 1);
  });

  it('that are replaced while they are looked at are not taken for broken ones', async () => {
    const first = await vms.acquire(ctx, request());
    const want = await vms.want(ctx, 'default');
    // Its memory goes at the moment of the look, as it does when a rotation ends.
    const files = node.files();
    const check = files.check.bind(files);
    let rotated: Promise<unknown> | undefined;
    files.check = async (template) => {
      if (template.id === first.record.template?.id) await (rotated ??= vms.templates.rotate(ctx, want));
      await check(template);
    };
    const second = await vms.acquire(ctx, request());
    expect(second.record.source).to.equal('clone');
    expect(second.record.template?.id).not.to.equal(first.record.template?.id);
    expect(await templateNames()).to.deep.equal([second.record.template?.id]);
  });

  it('keep their group from others while a clone of them lives', async () => {
    vms = node.manager({ ...node.settings, uidCount: 4 });
    const clone = await vms.acquire(ctx, request('a'));
    const gid = clone.record.template?.gid;
    await vms.templates.remove(clone.record.template?.id ?? '');
    // Four numbers: the clone's user, its old group, and two for what comes.
    const another = await vms.acquire(ctx, request('b'));
    expect([another.record.uid, another.record.template?.gid]).not.to.include(gid);
    const { sandboxId } = request('c');
    expect(await vms.acquire(ctx, request('c', sandboxId)).catch((error: unknown) => error)).to.have.property(
      'class',
      'ResourceExhausted',
    );
    await vms.destroyGone(ctx, clone.record.sandboxId);
    await vms.destroyGone(ctx, another.record.sandboxId);
  });

  it('whose clone does not come up are not used again, and the pod keeps its network', async () => {
    const wanted = request();
    const clone = await vms.acquire(ctx, wanted);
    const cold = await vms.replaceCold(ctx, wanted.sandboxId, 'its agent did not answer');
    expect(cold.record.source).to.equal('cold');
    expect(cold.record.template).to.equal(undefined);
    expect([cold.netnsPath, cold.tap, cold.record.uid]).to.deep.equal([
      clone.netnsPath,
      clone.tap,
      clone.record.uid,
    ]);
    expect(node.host.living(clone.record.id)?.pid).to.equal(cold.record.pid);
    expect(await templateNames()).to.deep.equal([]);
    await vms.destroyGone(ctx, wanted.sandboxId);
    expect(node.left()).to.deep.equal([]);
  });

  it('of a daemon that died while it built one leave nothing behind', async () => {
    node.rehearse = () => new Promise(() => undefined);
    void vms.warmUp(ctx);
    await eventually(() => Promise.resolve(node.rehearsals === 1));
    const next = node.manager();
    await next.sweep(ctx, new Set());
    expect(node.left()).to.deep.equal([]);
    await next.templates.list();
    expect(await templateNames()).to.deep.equal([]);
    vms = next;
  });
});

/** Long enough for a rejection that nobody handles to be noticed. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 3; turn += 1)
    await new Promise<void>((resolve) => {
      setImmediate(resolve);
    });
}

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { background, withCancel } from '../../../lib/base/context.js';
import { HerkosError } from '../../../lib/base/errors.js';
import { newId } from '../../../lib/base/ids.js';
import type { BuildPhase } from '../../../lib/cri/ports.js';
import { VmInspector } from '../../../lib/vm/describe.js';
import type { VmManager } from '../../../lib/vm/manager.js';
import type { MachineReport } from '../../../lib/vm/ports.js';
import { processDetails, processFacts } from '../../../lib/vm/process-facts.js';
import { FakeVmNode } from '../../fakes/vm-node.js';
import { eventually } from '../../tools/eventually.js';
import { rejection } from '../../tools/rejection.js';

const ctx = background();
const shape = { vcpus: 1, memoryMib: 128 };
const phases: BuildPhase[] = ['preparing', 'booting', 'saving', 'verifying'];

describe('vm inspector', () => {
  let directory: string;
  let node: FakeVmNode;
  let vms: VmManager;
  let inspector: VmInspector;
  /** What a VM answers. */
  let describeVm: (step: { readonly signal: AbortSignal }) => Promise<MachineReport>;

  const inspect = (manager: VmManager): VmInspector =>
    new VmInspector({
      get records() {
        return manager.records;
      },
      templates: manager.templates,
      want: (step, domain) => manager.want(step, domain),
      running: (id) =>
        node.host.living(id) === undefined ? undefined : { describe: (step) => describeVm(step) },
    });

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'hk-describe-'));
    node = new FakeVmNode(directory);
    vms = node.manager();
    inspector = inspect(vms);
    describeVm = () => Promise.resolve({ size: { vcpus: 3, memoryMib: 640 }, devices: [] });
  });
  afterEach(async () => {
    await vms.release();
    await rm(directory, { recursive: true, force: true });
  });

  const acquire = async (sandboxId = newId()): Promise<string> =>
    (await vms.acquire(ctx, { sandboxId, shape, domain: 'default', cgroupParent: '/pod1' })).record.id;
  /** A build that stops in the middle of its boot. */
  const halfBuilt = (): (() => void) => {
    let goOn = (): void => undefined;
    const gate = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    node.rehearse = () => gate;
    return goOn;
  };

  it('follows a build through its phases, and says when there is a template', async () => {
    const heard: BuildPhase[] = [];
    const built = await inspector.buildTemplate(ctx, 'default', (phase) => heard.push(phase));
    expect(heard).to.deep.equal(phases);
    expect(built.existed).to.equal(false);
    const again = await inspector.buildTemplate(ctx, 'default', () => expect.fail('nothing is built'));
    expect(again).to.deep.equal({ id: built.id, existed: true });
    const [template] = await inspector.templates();
    expect(template).to.include({ id: built.id, domain: 'default', accelerator: 'tcg', uses: 0 });
    expect(template).not.to.have.property('buildPhase');
    await acquire();
    expect((await inspector.templates())[0]?.uses).to.equal(1);
  });

  it('lets several follow one build, and shows it before there is a template', async () => {
    const goOn = halfBuilt();
    const leaving = withCancel(ctx);
    const heard: BuildPhase[] = [];
    const late: BuildPhase[] = [];
    const first = inspector.buildTemplate(ctx, 'a', (phase) => heard.push(phase));
    const left = rejection(inspector.buildTemplate(leaving, 'a', () => undefined));
    await eventually(() => Promise.resolve(heard.includes('booting')));
    const second = inspector.rotateTemplate(ctx, 'a', (phase) => late.push(phase));
    await eventually(() => Promise.resolve(late.length > 0));
    expect(await inspector.templates()).to.deep.equal([
      {
        ...{ id: '', domain: 'a', shape: { vcpus: 1, memoryMib: 2 }, accelerator: 'tcg' },
        ...{ builtAtMs: 0, uses: 0, memoryBytesUsed: 0, buildPhase: 'booting' },
      },
    ]);
    expect((await inspector.vms(ctx)).map(({ role }) => role)).to.deep.equal(['template']);
    // Whoever leaves does not end the build of the others.
    leaving.cancel();
    expect(await left).to.have.property('class', 'Cancelled');
    goOn();
    const { id } = await first;
    expect(await second).to.equal(id);
    expect(heard).to.deep.equal(phases);
    expect(late).to.deep.equal(phases.slice(1));
    expect(node.rehearsals).to.equal(1);
  });

  it('shows a template that is being built anew as the old one', async () => {
    const { id } = await inspector.buildTemplate(ctx, 'default', () => undefined);
    const goOn = halfBuilt();
    const rotated = inspector.rotateTemplate(ctx, 'default', () => undefined);
    await eventually(async () => (await inspector.templates())[0]?.buildPhase === 'booting');
    expect((await inspector.templates()).map((template) => template.id)).to.deep.equal([id]);
    goOn();
    expect(await rotated).not.to.equal(id);
    expect((await inspector.templates()).map((template) => template.id)).to.deep.equal([await rotated]);
  });

  it('tells what kept a template from being built', async () => {
    node.rehearse = () => Promise.reject(new HerkosError('Internal', 'no guest'));
    const heard: BuildPhase[] = [];
    const error = await rejection(inspector.buildTemplate(ctx, 'a', (phase) => heard.push(phase)));
    expect(error).to.have.property('message', 'no guest');
    expect(heard).to.deep.equal(['preparing', 'booting']);
    expect(await inspector.templates()).to.deep.equal([]);
  });

  it('removes templates by id', async () => {
    const { id } = await inspector.buildTemplate(ctx, 'default', () => undefined);
    expect(await inspector.removeTemplate('0'.repeat(16))).to.equal(false);
    expect(await inspector.removeTemplate(id)).to.equal(true);
    expect(await inspector.removeTemplate(id)).to.equal(false);
    expect(await inspector.templates()).to.deep.equal([]);
  });

  it('makes and reads nothing where templates are switched off', async () => {
    const off = inspect(
      node.manager({ ...node.settings, templates: { ...node.settings.templates, enabled: false } }),
    );
    expect(await off.templates()).to.deep.equal([]);
    expect(await off.removeTemplate('0'.repeat(16))).to.equal(false);
    for (const asked of [
      off.buildTemplate(ctx, 'a', () => undefined),
      off.rotateTemplate(ctx, 'a', () => undefined),
    ])
      expect(await rejection(asked)).to.have.property('class', 'FailedPrecondition');
  });

  it('lists a VM that does not answer, without what it did not say', async () => {
    const id = await acquire();
    expect((await inspector.vms(ctx))[0]).to.deep.include({
      role: 'pod',
      size: { vcpus: 3, memoryMib: 640 },
    });
    describeVm = () => Promise.reject(new HerkosError('Unavailable', 'the VM has ended'));
    const [facts] = await inspector.vms(ctx);
    expect(facts?.record.id).to.equal(id);
    expect(facts).not.to.have.any.keys('size', 'process');
    expect(await inspector.describeVm(ctx, id)).to.deep.include({ machine: { unknown: 'the VM has ended' } });
  });

  it('describes one VM with its template and its devices', async () => {
    const nic = { kind: 'nic', place: '0', keys: ['02:00:00:00:00:01'], owners: ['pod'], state: 'plugged' };
    describeVm = () => Promise.resolve({ size: shape, devices: [nic] });
    const id = await acquire();
    const told = await inspector.describeVm(ctx, id);
    expect(told.record).to.include({ id, source: 'clone' });
    expect(told).to.have.nested.property('machine.devices').that.deep.equals([nic]);
    expect(told).to.deep.nested.include({ 'template.current': true, 'template.uses': 1 });
    await inspector.rotateTemplate(ctx, 'default', () => undefined);
    expect((await inspector.describeVm(ctx, id))['template']).to.deep.equal({
      id: told.record.template?.id,
      current: false,
    });
    expect(await rejection(inspector.describeVm(ctx, newId()))).to.have.property('class', 'NotFound');
  });
});

describe('facts of a process', () => {
  const startTicks = async (): Promise<string> => {
    const stat = await readFile('/proc/self/stat', 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  };

  it('are those of exactly that process', async () => {
    const ticks = await startTicks();
    const facts = await processFacts(process.pid, ticks);
    expect(facts?.pssBytes).to.be.within(1024 * 1024, process.memoryUsage().rss * 2);
    expect(facts?.startedAtMs).to.be.closeTo(Date.now() - process.uptime() * 1000, 60_000);
    expect(await processFacts(process.pid, `${ticks}0`)).to.equal(undefined);
    // Above every pid that a kernel gives (proc(5), pid_max).
    expect(await processFacts(2 ** 22 + 1, ticks)).to.equal(undefined);
  });

  it('have the parts of its memory and its rights in detail', async () => {
    const details = await processDetails(process.pid, await startTicks());
    if (details === undefined) return expect.fail('we run');
    expect(details.user).to.have.length(4).and.include(process.getuid?.());
    const { pssAnonymousBytes, pssFileBytes, pssSharedMemoryBytes, residentBytes } = details.memory;
    const parts = pssAnonymousBytes + pssFileBytes + pssSharedMemoryBytes;
    // The kernel rounds each part to kilobytes.
    expect(parts).to.be.closeTo(details.pssBytes, 4096);
    expect(residentBytes).to.be.at.least(details.pssBytes);
    expect(details.threads).to.be.greaterThan(0);
    expect(details.cgroups).to.have.length.greaterThan(0);
  });
});

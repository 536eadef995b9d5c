import { expect } from 'chai';

import { herkos } from '#gen/admin/v1/api.js';
import { admin } from '#gen/admin/v1/services.js';

import type { CancellableContext } from '../../../lib/base/context.js';
import { background, withTimeout } from '../../../lib/base/context.js';
import { HerkosError } from '../../../lib/base/errors.js';
import { newId } from '../../../lib/base/ids.js';
import { untilDone } from '../../fakes/pods.js';
import { Harness } from './harness.js';

type Progress = herkos.admin.v1.TemplateProgress;
const { Phase } = herkos.admin.v1.TemplateProgress;
const { Role } = herkos.admin.v1.Vm;

describe('admin RPCs of machines', () => {
  let cri: Harness;
  let ctx: CancellableContext;
  beforeEach(async () => {
    cri = await Harness.start();
    ctx = withTimeout(background(), 60_000, 'test');
  });
  afterEach(async () => {
    ctx.cancel();
    await cri.stop();
  });

  const build = async (domain = ''): Promise<Progress[]> => {
    const messages: Progress[] = [];
    for await (const message of cri.client.stream(ctx, admin.buildTemplate, { domain }))
      messages.push(message);
    return messages;
  };
  const rejected = async (promise: Promise<unknown>): Promise<unknown> =>
    promise.then(
      () => expect.fail('should have failed'),
      (error: unknown) => error,
    );

  it('build a template, phase by phase, and say when there is one', async () => {
    const first = await build();
    expect(first.map(({ phase }) => phase)).to.deep.equal([
      Phase.PHASE_PREPARING,
      Phase.PHASE_BOOTING,
      Phase.PHASE_SAVING,
      Phase.PHASE_VERIFYING,
      Phase.PHASE_DONE,
    ]);
    const id = cri.machines.known[0]?.id;
    expect(first.at(-1)).to.include({ templateId: id, existed: false });
    const again = await build('default');
    expect(again).to.have.length(1);
    expect(again[0]).to.include({ templateId: id, existed: true, phase: Phase.PHASE_DONE });
    expect(cri.machines.calls).to.deep.equal(['build default', 'build default']);
  });

  for (const domain of ['a/b', '..', 'a b', '-a', 'a\n', 'é', 'x'.repeat(254)])
    it(`refuse the domain ${JSON.stringify(domain.slice(0, 20))}`, async () => {
      expect(await rejected(build(domain))).to.include({ class: 'InvalidArgument' });
      const rotate = cri.client.stream(ctx, admin.rotateTemplate, { domain });
      expect(await rejected(rotate.next())).to.include({ class: 'InvalidArgument' });
      expect(cri.machines.calls).to.deep.equal([]);
    });

  it('fail with what kept a template from being built, after the phases that went well', async () => {
    cri.machines.beforeSave = () => Promise.reject(new HerkosError('ResourceExhausted', 'no room'));
    const phases: number[] = [];
    const building = (async () => {
      for await (const { phase } of cri.client.stream(ctx, admin.buildTemplate, {})) phases.push(phase);
    })();
    expect(await rejected(building)).to.include({ class: 'ResourceExhausted', message: 'no room' });
    expect(phases).to.deep.equal([Phase.PHASE_PREPARING, Phase.PHASE_BOOTING]);
  });

  it('let go of a client that leaves', async () => {
    const ended = new Promise<unknown>((resolve) => {
      cri.machines.beforeSave = async (call) => {
        ctx.cancel();
        await untilDone(call).catch(resolve);
      };
    });
    expect(await rejected(build())).to.have.property('class', 'Cancelled');
    expect(await ended).to.have.property('class', 'Cancelled');
  });

  it('list templates, those of a first build too', async () => {
    await build('tenant-a');
    const { shape, accelerator } = cri.machines.known[0] ?? expect.fail('no template');
    const facts = { shape, accelerator, builtAtMs: 0, uses: 0, memoryBytesUsed: 0 };
    cri.machines.known.push({ ...facts, id: '', domain: 'b', buildPhase: 'booting' });
    const { templates } = await cri.call(admin.listTemplates, {});
    expect(templates[0]).to.include({ domain: 'tenant-a', vcpus: 1, memoryMib: 256, accelerator: 'tcg' });
    expect(String(templates[0]?.builtAt)).to.equal('1700000000123000000');
    expect(templates[0]?.buildPhase).to.equal(Phase.PHASE_UNSPECIFIED);
    expect(templates[1]).to.include({ id: '', domain: 'b', buildPhase: Phase.PHASE_BOOTING });
  });

  it('remove a template by its whole id and nothing else', async () => {
    const id = (await build()).at(-1)?.templateId ?? '';
    for (const bad of ['', id.slice(1), `${id}0`, '../../../../etc', `${id.slice(1)}/`, id.toUpperCase()])
      expect(await cri.failure(admin.removeTemplate, { id: bad }), bad).to.include({
        class: 'InvalidArgument',
      });
    expect(cri.machines.calls).to.deep.equal(['build default']);
    await cri.call(admin.removeTemplate, { id });
    expect(cri.machines.known).to.deep.equal([]);
    expect(await cri.failure(admin.removeTemplate, { id })).to.include({ class: 'NotFound' });
  });

  it('list VMs with the pods that have them', async () => {
    const podSandboxId = await cri.sandbox('web');
    cri.machines.add(podSandboxId, 'pod');
    const pooled = cri.machines.add(newId(), 'pool', { source: 'pool' });
    const gone = cri.machines.add(newId(), 'pod');
    cri.machines.all.splice(2, 1, { record: gone.record, role: 'pod' });
    const { vms } = await cri.call(admin.listVms, {});
    expect(vms[0]).to.include({
      ...{ id: podSandboxId, role: Role.ROLE_POD, podSandboxId, podNamespace: 'default', podName: 'web' },
      ...{ source: 'clone', domain: 'default', pid: 4242, uid: 1_900_000_001, vcpus: 2, memoryMib: 512 },
    });
    expect(String(vms[0]?.pssBytes)).to.equal(String(32 * 1024 * 1024));
    expect(String(vms[0]?.startedAt)).to.equal('1700000000000000000');
    expect(vms[1]).to.include({ id: pooled.record.id, role: Role.ROLE_POOL, podSandboxId: '', podName: '' });
    // Without its process, what the record says of one is not told.
    expect(vms[2]).to.include({ id: gone.record.id, pid: 0, vcpus: 0, podName: '' });
  });

  it('inspect a VM with its pod, by its whole id', async () => {
    const id = await cri.sandbox('web');
    cri.machines.add(id, 'pod');
    const { json } = await cri.call(admin.inspectVm, { id });
    const told = JSON.parse(json) as Record<string, unknown>;
    expect(told).to.have.nested.property('record.source', 'clone');
    expect(told).to.have.nested.property('pod.name', 'web');
    expect(told).to.not.have.nested.property('pod.vm');
    for (const bad of ['', id.slice(1), '../x', `${id}\n`])
      expect(await cri.failure(admin.inspectVm, { id: bad })).to.include({ class: 'InvalidArgument' });
    expect(await cri.failure(admin.inspectVm, { id: newId() })).to.include({ class: 'NotFound' });
  });
}).timeout(120_000);

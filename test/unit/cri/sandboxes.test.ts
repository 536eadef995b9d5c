import { expect } from 'chai';

import { withTimeout, background } from '../../../lib/base/context.js';
import { HerkosError } from '../../../lib/base/errors.js';
import { v1 } from '../../../lib/cri/api.js';
import { untilDone } from '../../fakes/pods.js';
import { Harness, containerConfig, sandboxConfig, unknownValue } from './harness.js';

const { NamespaceMode, PodSandboxState } = v1;

describe('sandbox RPCs', () => {
  let cri: Harness;
  beforeEach(async () => {
    cri = await Harness.start();
  });
  afterEach(async () => {
    await cri.stop();
  });

  it('run a pod and echo what the kubelet compares', async () => {
    const podSandboxId = await cri.sandbox('web');
    const { status } = await cri.call(cri.rpc.podSandboxStatus, { podSandboxId });
    const sent = sandboxConfig('web');
    expect(status?.id).to.equal(podSandboxId);
    expect(status?.metadata).to.include(sent.metadata);
    expect(status?.state).to.equal(PodSandboxState.SANDBOX_READY);
    expect(status?.labels).to.deep.equal(sent.labels);
    expect(status?.annotations).to.deep.equal(sent.annotations);
    expect(status?.network?.ip).to.equal('10.1.2.3');
    expect(status?.network?.additionalIps?.map(({ ip }) => ip)).to.deep.equal(['fd00::3']);
    expect(status?.linux?.namespaces?.options).to.include({
      network: NamespaceMode.POD,
      pid: NamespaceMode.CONTAINER,
      ipc: NamespaceMode.POD,
    });
    expect(status?.runtimeHandler).to.equal('');
    const ageMs = Date.now() - Number(BigInt(String(status?.createdAt)) / 1_000_000n);
    expect(ageMs).to.be.within(-1000, 60_000);
  });

  it('tell times and the machine in the verbose status alone', async () => {
    const podSandboxId = await cri.sandbox();
    const quiet = await cri.call(cri.rpc.podSandboxStatus, { podSandboxId });
    expect(quiet.info).to.deep.equal({});
    const { info } = await cri.call(cri.rpc.podSandboxStatus, { podSandboxId, verbose: true });
    const told = JSON.parse(info['info'] ?? '') as Record<string, unknown>;
    expect(told).to.deep.include({ phase: 'ready', timings: [{ phase: 'vm', ms: 12 }] });
    expect(told['vm']).to.deep.equal({ pid: 4711, id: podSandboxId });
  });

  it('list by id prefix, state and labels, all of which must match', async () => {
    const [a, b] = [await cri.sandbox('a'), await cri.sandbox('b')];
    await cri.call(cri.rpc.stopPodSandbox, { podSandboxId: b });
    const list = async (filter?: v1.PodSandboxFilter.$Properties): Promise<string[]> =>
      (await cri.call(cri.rpc.listPodSandbox, filter === undefined ? {} : { filter })).items.map(
        ({ id }) => id ?? '',
      );
    const ready = { state: PodSandboxState.SANDBOX_READY };
    expect(await list()).to.have.members([a, b]);
    expect(await list({})).to.have.members([a, b]);
    expect(await list({ id: a.slice(0, 10) })).to.deep.equal([a]);
    expect(await list({ id: 'f00f' })).to.deep.equal([]);
    expect(await list({ state: ready })).to.deep.equal([a]);
    expect(await list({ state: { state: PodSandboxState.SANDBOX_NOTREADY } })).to.deep.equal([b]);
    expect(await list({ labelSelector: { app: 'b' } })).to.deep.equal([b]);
    expect(await list({ labelSelector: { app: 'b' }, state: ready })).to.deep.equal([]);
    expect(await list({ labelSelector: { app: 'b', more: 'x' } })).to.deep.equal([]);
    expect(await list({ labelSelector: { toString: '' } })).to.deep.equal([]);
  });

  it('stop and remove as often as anybody likes, known or not', async () => {
    const podSandboxId = await cri.sandbox();
    for (const id of [podSandboxId, podSandboxId, 'f'.repeat(64)]) {
      await cri.call(cri.rpc.stopPodSandbox, { podSandboxId: id });
      await cri.call(cri.rpc.removePodSandbox, { podSandboxId: id });
    }
    expect((await cri.call(cri.rpc.listPodSandbox, {})).items).to.deep.equal([]);
    expect((await cri.failure(cri.rpc.podSandboxStatus, { podSandboxId })).class).to.equal('NotFound');
  });

  it('never take an empty id for the prefix of the only pod', async () => {
    await cri.sandbox();
    const podSandboxId = '';
    expect((await cri.failure(cri.rpc.removePodSandbox, { podSandboxId })).class).to.equal('InvalidArgument');
    expect((await cri.failure(cri.rpc.stopPodSandbox, { podSandboxId })).class).to.equal('InvalidArgument');
    expect((await cri.failure(cri.rpc.podSandboxStatus, { podSandboxId })).class).to.equal('InvalidArgument');
    expect(cri.pods.sandboxes()).to.have.lengthOf(1);
  });

  it('report no address of a stopped pod', async () => {
    const podSandboxId = await cri.sandbox();
    await cri.call(cri.rpc.stopPodSandbox, { podSandboxId });
    const { status } = await cri.call(cri.rpc.podSandboxStatus, { podSandboxId });
    expect(status?.state).to.equal(PodSandboxState.SANDBOX_NOTREADY);
    expect(status?.network?.ip).to.equal('');
    expect(status?.metadata?.attempt).to.equal(3);
  });

  describe('refuse', () => {
    const security = (
      securityContext: v1.LinuxSandboxSecurityContext.$Properties,
    ): v1.PodSandboxConfig.$Properties => ({ linux: { securityContext } });
    const cases: readonly (readonly [string, v1.PodSandboxConfig.$Properties, RegExp])[] = [
      ['no metadata', { metadata: null }, /metadata is missing/],
      ['no name', { metadata: { name: '', namespace: 'n', uid: 'u' } }, /metadata.name is missing/],
      ['no uid', { metadata: { name: 'n', namespace: 'n' } }, /metadata.uid is missing/],
      [
        'a name that is CNI syntax',
        { metadata: { name: 'a;B=c', namespace: 'n', uid: 'u' } },
        /name 'a;B=c'/,
      ],
      ['a relative log directory', { logDirectory: 'logs' }, /log_directory/],
      ['a log directory with ..', { logDirectory: '/var/../etc' }, /log_directory/],
      ['a host name with a space', { hostname: 'a b' }, /hostname/],
      ['a long host name', { hostname: 'a'.repeat(65) }, /hostname/],
      ['a DNS server with a new line', { dnsConfig: { servers: ['1.1.1.1\nx'] } }, /dns_config/],
      ['a port out of range', { portMappings: [{ containerPort: 70_000 }] }, /container_port 70000/],
      ['an odd protocol', { portMappings: [{ protocol: unknownValue(9) }] }, /protocol/],
      ['a relative cgroup', { linux: { cgroupParent: 'kubepods/x' } }, /cgroup_parent/],
      ['a cgroup with ..', { linux: { cgroupParent: '/a/../../b' } }, /cgroup_parent/],
      ['a sysctl with a path', { linux: { sysctls: { '../../etc/passwd': '1' } } }, /sysctls/],
      [
        'the network of the node',
        security({ namespaceOptions: { network: NamespaceMode.NODE } }),
        /RuntimeClass/,
      ],
      [
        'the PIDs of the node',
        security({ namespaceOptions: { pid: NamespaceMode.NODE } }),
        /PID.*RuntimeClass/,
      ],
      [
        'the IPC of the node',
        security({ namespaceOptions: { ipc: NamespaceMode.NODE } }),
        /IPC.*RuntimeClass/,
      ],
      ['user namespaces', security({ namespaceOptions: { usernsOptions: {} } }), /user namespaces/],
      ['SELinux labels', security({ selinuxOptions: { type: 'x_t' } }), /SELinux/],
      [
        'an AppArmor profile of the node',
        security({ apparmor: { profileType: v1.SecurityProfile.ProfileType.Localhost, localhostRef: 'p' } }),
        /AppArmor profile 'p'/,
      ],
      ['Windows', { windows: {} }, /Linux/],
    ];
    for (const [what, config, message] of cases) {
      it(what, async () => {
        const error = await cri.failure(cri.rpc.runPodSandbox, { config: sandboxConfig('pod', config) });
        expect(error.class).to.equal('InvalidArgument');
        expect(error.message).to.match(message);
        expect(cri.pods.calls).to.deep.equal([]);
      });
    }

    it('a missing config', async () => {
      expect((await cri.failure(cri.rpc.runPodSandbox, {})).message).to.equal('config is missing');
    });

    it('a handler that is not served', async () => {
      const config = sandboxConfig('pod');
      const error = await cri.failure(cri.rpc.runPodSandbox, { config, runtimeHandler: 'runc' });
      expect(error.message).to.contain("'runc' is not known").and.contain("'herkos'");
      await cri.call(cri.rpc.runPodSandbox, { config, runtimeHandler: 'herkos' });
    });
  });

  it('take options that say nothing for no options', async () => {
    await cri.sandbox('pod', {
      dnsConfig: {},
      linux: {
        cgroupParent: 'kubepods-burstable-pod1.slice',
        securityContext: {
          selinuxOptions: {},
          namespaceOptions: { usernsOptions: { mode: NamespaceMode.NODE } },
          apparmor: { profileType: v1.SecurityProfile.ProfileType.RuntimeDefault },
        },
      },
    });
    const [record] = cri.pods.sandboxes();
    expect(record?.config).to.not.have.any.keys('dns', 'resources', 'overhead');
  });

  it('stop their work when the client gives up', async () => {
    const ended = new Promise<unknown>((resolve) => {
      cri.pods.beforeRun = async (ctx) => untilDone(ctx).catch(resolve);
    });
    const started = cri.call(
      cri.rpc.runPodSandbox,
      { config: sandboxConfig('pod') },
      withTimeout(background(), 200, 'test'),
    );
    await started.then(
      () => expect.fail('the call should have ended'),
      (error: unknown) => {
        expect(error).to.have.property('class', 'DeadlineExceeded');
      },
    );
    expect(await ended).to.be.instanceOf(HerkosError);
  });

  it('keep class, reason and text of an error that a room throws', async () => {
    const thrown = new HerkosError('ResourceExhausted', 'kein Platz für 100 % mehr ☂ \ud800!', {
      reason: 'FULL',
    });
    cri.pods.beforeRun = () => Promise.reject(thrown);
    const error = await cri.failure(cri.rpc.runPodSandbox, { config: sandboxConfig('pod') });
    expect(error).to.include({ class: 'ResourceExhausted', reason: 'FULL' });
    expect(error.message).to.equal('kein Platz für 100 % mehr ☂ \ufffd!');
  });

  it('create nothing in a pod that is not ready', async () => {
    const podSandboxId = await cri.sandbox();
    await cri.call(cri.rpc.stopPodSandbox, { podSandboxId });
    const request = { podSandboxId, config: containerConfig() };
    expect((await cri.failure(cri.rpc.createContainer, request)).class).to.equal('FailedPrecondition');
  });
}).timeout(120_000);

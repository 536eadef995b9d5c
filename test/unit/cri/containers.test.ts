import { expect } from 'chai';
import Long from 'long';

import { HerkosError } from '../../../lib/base/errors.js';
import { v1 } from '../../../lib/cri/api.js';
import { Harness, containerConfig, unknownValue } from './harness.js';

const { ContainerState } = v1;

describe('container RPCs', () => {
  let cri: Harness;
  let podSandboxId: string;
  beforeEach(async () => {
    cri = await Harness.start();
    podSandboxId = await cri.sandbox('pod');
  });
  afterEach(async () => {
    await cri.stop();
  });

  const statusOf = async (containerId: string): Promise<v1.ContainerStatus.$Properties> => {
    const { status } = await cri.call(cri.rpc.containerStatus, { containerId });
    if (!status) throw new Error('no status');
    return status;
  };

  it('tell the life of a container', async () => {
    const containerId = await cri.container(podSandboxId);
    const created = await statusOf(containerId);
    expect(created.state).to.equal(ContainerState.CONTAINER_CREATED);
    expect([created.startedAt, created.finishedAt].map(String)).to.deep.equal(['0', '0']);
    await cri.call(cri.rpc.startContainer, { containerId });
    const running = await statusOf(containerId);
    expect(running.state).to.equal(ContainerState.CONTAINER_RUNNING);
    expect(running.reason).to.equal('');
    cri.pods.exit(containerId, 3);
    const exited = await statusOf(containerId);
    expect(exited).to.include({ state: ContainerState.CONTAINER_EXITED, exitCode: 3, reason: 'Error' });
    const [createdAt, startedAt, finishedAt] = [exited.createdAt, exited.startedAt, exited.finishedAt].map(
      (time) => BigInt(String(time)),
    );
    expect([createdAt, startedAt, finishedAt]).to.deep.equal([createdAt, startedAt, finishedAt].sort());
  });

  it('echo what was asked for', async () => {
    const mounts: v1.Mount.$Properties[] = [
      { containerPath: '/etc/hosts', hostPath: '/var/lib/kubelet/x/etc-hosts' },
      {
        containerPath: '/data',
        hostPath: '/mnt/data',
        readonly: true,
        recursiveReadOnly: true,
        propagation: v1.MountPropagation.PROPAGATION_PRIVATE,
      },
      { containerPath: '/vol', image: { image: 'example.org/vol:1' }, imageSubPath: 'sub', readonly: true },
    ];
    const sent = containerConfig({
      mounts,
      stopSignal: v1.Signal.SIGNAL_SIGTERM,
      linux: {
        resources: { cpuShares: Long.fromNumber(512), memoryLimitInBytes: Long.fromNumber(2 ** 40) },
        securityContext: { runAsUser: { value: Long.fromNumber(1000) } },
      },
    });
    const containerId = await cri.container(podSandboxId, sent);
    const status = await statusOf(containerId);
    expect(status.metadata).to.include({ name: 'app', attempt: 1 });
    expect(status.image).to.include({ image: 'example.org/app:1', userSpecifiedImage: 'app:1' });
    expect(status.imageId).to.match(/^sha256:a{64}$/);
    expect(status.imageRef).to.not.equal('');
    expect(status.labels).to.deep.equal(sent.labels);
    expect(status.annotations).to.deep.equal(sent.annotations);
    expect(status.logPath).to.equal('/var/log/pods/pod/app/1.log');
    expect(status.mounts?.map(({ containerPath }) => containerPath)).to.deep.equal([
      '/etc/hosts',
      '/data',
      '/vol',
    ]);
    expect(status.mounts?.[1]).to.include({ hostPath: '/mnt/data', readonly: true, recursiveReadOnly: true });
    expect(status.mounts?.[2]?.image?.image).to.equal('example.org/vol:1');
    expect(String(status.resources?.linux?.memoryLimitInBytes)).to.equal(String(2 ** 40));
    expect(String(status.user?.linux?.uid)).to.equal('1000');
    expect(status.stopSignal).to.equal(v1.Signal.SIGNAL_SIGTERM);
  });

  it('keep the bytes of an environment that is not text', async () => {
    const value = Buffer.from([0xff, 0xfe, 0x41]);
    const containerId = await cri.container(podSandboxId, containerConfig({ envs: [{ key: 'RAW', value }] }));
    const kept = cri.pods.container(containerId).config.envs;
    expect(kept).to.deep.equal([{ key: 'RAW', valueBase64: value.toString('base64') }]);
  });

  it('show no environment in the verbose status', async () => {
    const envs = [{ key: 'PASSWORD', value: Buffer.from('hunter2') }];
    const containerId = await cri.container(podSandboxId, containerConfig({ envs }));
    const { info } = await cri.call(cri.rpc.containerStatus, { containerId, verbose: true });
    expect(JSON.parse(info['info'] ?? '')).to.include({ phase: 'created', sandboxId: podSandboxId });
    expect(info['info']).to.not.contain('hunter2').and.not.contain(Buffer.from('hunter2').toString('base64'));
  });

  it('list by everything that a filter can name', async () => {
    const other = await cri.sandbox('other');
    const a = await cri.container(podSandboxId);
    const b = await cri.container(other, containerConfig({ labels: { tier: 'db' } }));
    await cri.call(cri.rpc.startContainer, { containerId: a });
    const list = async (filter: v1.ContainerFilter.$Properties): Promise<string[]> =>
      (await cri.call(cri.rpc.listContainers, { filter })).containers.map(({ id }) => id ?? '');
    expect(await list({})).to.have.members([a, b]);
    expect(await list({ id: b.slice(0, 12) })).to.deep.equal([b]);
    expect(await list({ podSandboxId: other })).to.deep.equal([b]);
    expect(await list({ state: { state: ContainerState.CONTAINER_RUNNING } })).to.deep.equal([a]);
    expect(await list({ state: { state: ContainerState.CONTAINER_CREATED } })).to.deep.equal([b]);
    expect(await list({ labelSelector: { tier: 'db' }, podSandboxId })).to.deep.equal([]);
  });

  it('forgive unknown ids where the kubelet repeats itself, and nowhere else', async () => {
    const containerId = 'f'.repeat(64);
    await cri.call(cri.rpc.stopContainer, { containerId });
    await cri.call(cri.rpc.removeContainer, { containerId });
    expect((await cri.failure(cri.rpc.startContainer, { containerId })).class).to.equal('NotFound');
    expect((await cri.failure(cri.rpc.containerStatus, { containerId })).class).to.equal('NotFound');
    expect((await cri.failure(cri.rpc.reopenContainerLog, { containerId })).class).to.equal('NotFound');
    expect((await cri.failure(cri.rpc.execSync, { containerId, cmd: ['a'] })).class).to.equal('NotFound');
    expect((await cri.failure(cri.rpc.removeContainer, { containerId: '' })).class).to.equal(
      'InvalidArgument',
    );
  });

  it('start only once, and reopen only running logs', async () => {
    const containerId = await cri.container(podSandboxId);
    const reopen = cri.rpc.reopenContainerLog;
    expect((await cri.failure(reopen, { containerId })).class).to.equal('FailedPrecondition');
    await cri.call(cri.rpc.startContainer, { containerId });
    expect((await cri.failure(cri.rpc.startContainer, { containerId })).class).to.equal('FailedPrecondition');
    await cri.call(reopen, { containerId });
  });

  it('bound the grace period to what a timer can hold', async () => {
    const containerId = await cri.container(podSandboxId);
    await cri.call(cri.rpc.startContainer, { containerId });
    await cri.call(cri.rpc.stopContainer, { containerId, timeout: Long.fromString('4611686018427') });
    expect(cri.pods.calls.at(-1)).to.equal(`stopContainer ${containerId} ${String(14 * 24 * 3600)}`);
    const request = { containerId, timeout: Long.fromNumber(-1) };
    expect((await cri.failure(cri.rpc.stopContainer, request)).class).to.equal('InvalidArgument');
  });

  describe('ExecSync', () => {
    it('answers a failed command with its exit code', async () => {
      const containerId = await cri.container(podSandboxId);
      cri.pods.exec = () =>
        Promise.resolve({ exitCode: 7, stdout: Buffer.from('out'), stderr: Buffer.from([0xff]) });
      const answer = await cri.call(cri.rpc.execSync, { containerId, cmd: ['false'] });
      expect(answer.exitCode).to.equal(7);
      expect(Buffer.from(answer.stdout).toString()).to.equal('out');
      expect([...answer.stderr]).to.deep.equal([0xff]);
    });

    it('ends with DeadlineExceeded when the command is late', async () => {
      const containerId = await cri.container(podSandboxId);
      cri.pods.exec = () => Promise.reject(new HerkosError('DeadlineExceeded', 'the command took too long'));
      const error = await cri.failure(cri.rpc.execSync, { containerId, cmd: ['a'], timeout: Long.ONE });
      expect(error).to.include({ class: 'DeadlineExceeded', message: 'the command took too long' });
    });

    it('fits one message even with both streams full', async () => {
      const containerId = await cri.container(podSandboxId);
      const much = Buffer.alloc(9 * 1024 * 1024, 'x');
      cri.pods.exec = () => Promise.resolve({ exitCode: 0, stdout: much, stderr: much });
      const answer = await cri.call(cri.rpc.execSync, { containerId, cmd: ['yes'] });
      expect(answer.stdout.length).to.be.within(7 * 1024 * 1024, 8 * 1024 * 1024);
      expect(answer.stderr.length).to.equal(answer.stdout.length);
    });

    it('refuses no command', async () => {
      const containerId = await cri.container(podSandboxId);
      expect((await cri.failure(cri.rpc.execSync, { containerId })).class).to.equal('InvalidArgument');
    });
  });

  describe('refuse', () => {
    const security = (
      securityContext: v1.LinuxContainerSecurityContext.$Properties,
    ): v1.ContainerConfig.$Properties => ({ linux: { securityContext } });
    const cases: readonly (readonly [string, v1.ContainerConfig.$Properties, RegExp])[] = [
      ['no metadata', { metadata: null }, /metadata is missing/],
      ['no name', { metadata: {} }, /metadata.name is missing/],
      ['no image', { image: null }, /config.image is missing/],
      ['an empty image', { image: {} }, /image.image is missing/],
      ['an absolute log path', { logPath: '/etc/x' }, /log_path/],
      ['a log path that climbs', { logPath: '../x.log' }, /log_path/],
      ['a device of the node', { devices: [{ hostPath: '/dev/fuse' }] }, /\/dev\/fuse/],
      ['a CDI device', { CDIDevices: [{ name: 'gpu' }] }, /gpu/],
      ['Windows', { windows: {} }, /Linux/],
      ['a NUL in the command', { command: ['a\0b'] }, /NUL/],
      ['a variable without a name', { envs: [{ key: '' }] }, /envs.key/],
      ['a variable with =', { envs: [{ key: 'a=b' }] }, /a=b/],
      ['a mount without a target', { mounts: [{ hostPath: '/a' }] }, /container_path/],
      ['a mount of nothing', { mounts: [{ containerPath: '/a' }] }, /host_path is missing/],
      [
        'a recursive read-only mount that is not read-only',
        { mounts: [{ containerPath: '/a', hostPath: '/b', recursiveReadOnly: true }] },
        /recursive_read_only/,
      ],
      [
        'mapped mounts',
        { mounts: [{ containerPath: '/a', hostPath: '/b', uidMappings: [{ length: 1 }] }] },
        /id mappings/,
      ],
      [
        'mount options',
        { mounts: [{ containerPath: '/a', hostPath: '/b', mountOptions: ['noexec'] }] },
        /mount options/,
      ],
      ['a group without a user', security({ runAsGroup: { value: Long.ONE } }), /run_as_group/],
      [
        'a user out of range',
        security({ runAsUser: { value: Long.fromString('4294967295') } }),
        /run_as_user/,
      ],
      ['a negative group', security({ supplementalGroups: [Long.NEG_ONE] }), /supplemental_groups/],
      ['SELinux', security({ selinuxOptions: { level: 's0' } }), /SELinux/],
      ['AppArmor of the node', security({ apparmorProfile: 'localhost/x' }), /AppArmor/],
      [
        'the PIDs of the node',
        security({ namespaceOptions: { pid: v1.NamespaceMode.NODE } }),
        /RuntimeClass/,
      ],
      [
        'a seccomp profile without a path',
        security({ seccomp: { profileType: v1.SecurityProfile.ProfileType.Localhost } }),
        /localhost_ref is missing/,
      ],
      ['an unknown seccomp profile', security({ seccompProfilePath: 'what' }), /seccomp_profile_path/],
      ['an unknown signal', { stopSignal: unknownValue(99) }, /stop_signal/],
      ['a negative share', { linux: { resources: { cpuShares: Long.NEG_ONE } } }, /cpu_shares/],
    ];
    for (const [what, config, message] of cases) {
      it(what, async () => {
        const request = { podSandboxId, config: containerConfig(config) };
        const error = await cri.failure(cri.rpc.createContainer, request);
        expect(error.class).to.equal('InvalidArgument');
        expect(error.message).to.match(message);
        expect(cri.pods.containers()).to.deep.equal([]);
      });
    }

    it('a missing config and an unknown pod', async () => {
      const config = containerConfig();
      expect((await cri.failure(cri.rpc.createContainer, { podSandboxId })).message).to.equal(
        'config is missing',
      );
      const request = { podSandboxId: 'f'.repeat(64), config };
      expect((await cri.failure(cri.rpc.createContainer, request)).class).to.equal('NotFound');
    });
  });
}).timeout(120_000);

import { expect } from 'chai';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { classOf, messageOf } from '../../../lib/base/errors.js';
import type { ContainerConfig, ContainerSecurity } from '../../../lib/model/container.js';
import { buildSpec, execProcess } from '../../../lib/pod/spec/build-spec.js';
import { allCapabilities, capabilitiesOf, defaultCapabilities } from '../../../lib/pod/spec/capabilities.js';
import { commandOf } from '../../../lib/pod/spec/entrypoint.js';
import { environmentOf } from '../../../lib/pod/spec/environment.js';
import { resourcesOf } from '../../../lib/pod/spec/resources.js';
import { defaultSeccomp } from '../../../lib/pod/spec/seccomp-default.js';
import { convertSeccompProfile, readSeccompProfile } from '../../../lib/pod/spec/seccomp-localhost.js';
import { signalNumber } from '../../../lib/pod/spec/signals.js';
import { userOf } from '../../../lib/pod/spec/user.js';
import type { OciSpec } from '../../../lib/wire/ocispec/types.js';
import { containerConfig, testImage, testSecurity } from '../../fakes/pod-configs.js';
import { rejection } from '../../tools/rejection.js';

const id = 'a'.repeat(64);

function spec(changes: Partial<ContainerConfig> = {}, security: Partial<ContainerSecurity> = {}): OciSpec {
  const config = containerConfig('sleep', { ...changes, security: { ...testSecurity, ...security } });
  const user = { uid: 1000, gid: 1000, supplementalGroups: [1000, 7] };
  return buildSpec({
    containerId: id,
    config,
    image: testImage.run,
    user,
    hostname: 'box',
    seccomp: undefined,
  });
}

describe('the OCI config of a container', () => {
  it('is what was asked for', () => {
    const built = spec(
      { tty: true, resources: { oomScoreAdj: 5 } },
      { noNewPrivs: true, readonlyRootfs: true },
    );
    expect(built.process).to.deep.include({
      terminal: true,
      args: ['/bin/sh', '-c', 'sleep'],
      cwd: '/',
      user: { uid: 1000, gid: 1000, additionalGids: [1000, 7] },
      noNewPrivileges: true,
      oomScoreAdj: 5,
    });
    expect(built.root.readonly).to.equal(true);
    expect(built.linux.cgroupsPath).to.equal(`/herkos/${id}`);
    expect(built.linux.seccomp).to.equal(undefined);
    expect(built.mounts.find((one) => one.destination === '/etc/hosts')?.options).to.include('ro');
  });

  it('joins the pod: no network, IPC or UTS namespace of its own, the pod’s files and memory', () => {
    const built = spec();
    expect(built.linux.namespaces.map((one) => one.type)).to.have.members(['mount', 'cgroup', 'pid']);
    const sources = built.mounts.filter((one) => one.type === 'bind').map((one) => one.source);
    expect(sources.every((source) => source.startsWith('/run/herkos/pod/'))).to.equal(true);
    expect(built.mounts.map((one) => one.destination)).to.include.members(['/dev/shm', '/etc/resolv.conf']);
  });

  it('shares processes as the pod wants', () => {
    const pid = (options: Partial<ContainerSecurity['namespaceOptions']>): unknown =>
      spec({}, { namespaceOptions: { ...testSecurity.namespaceOptions, ...options } }).linux.namespaces.at(
        -1,
      );
    expect(pid({ pid: 'CONTAINER' })).to.deep.equal({ type: 'pid' });
    expect(pid({ pid: 'POD' })).to.deep.equal({ type: 'pid', path: '/run/herkos/pod/ns/pid' });
    expect(pid({ pid: 'TARGET', targetId: 'x' })).to.deep.equal({
      type: 'pid',
      path: '/run/herkos/containers/x/ns/pid',
    });
    expect(() => pid({ pid: 'NODE' })).to.throw(/PID namespace of the node/);
  });

  it('applies exactly the paths that were sent, and none to a privileged container', () => {
    const paths = { maskedPaths: ['/proc/kcore'], readonlyPaths: ['/proc/sys'] };
    expect(spec({}, paths).linux).to.deep.include(paths);
    const privileged = spec({}, { ...paths, privileged: true });
    expect(privileged.linux).to.deep.include({ maskedPaths: [], readonlyPaths: [] });
    expect(privileged.linux.resources.devices).to.deep.equal([{ allow: true, access: 'rwm' }]);
    expect(privileged.mounts.find((one) => one.destination === '/sys')?.options).to.include('rw');
    expect(privileged.process.capabilities.bounding).to.deep.equal(allCapabilities);
    expect(() => spec({}, { maskedPaths: ['proc'] })).to.throw(/not an absolute path/);
  });

  it('takes the working directory of the container, else of the image', () => {
    expect(spec({ workingDir: '/srv' }).process.cwd).to.equal('/srv');
    expect(() => spec({ workingDir: 'srv' })).to.throw(/working_dir/);
    expect(() => spec({ resources: { oomScoreAdj: 1001 } })).to.throw(/oom_score_adj/);
  });

  it('gives an exec everything but the command and the terminal', () => {
    const { process } = spec({ tty: true });
    expect(execProcess(process, ['ls'])).to.deep.equal({ ...process, args: ['ls'], terminal: false });
    expect(() => execProcess(process, ['a\0b'])).to.throw(/NUL/);
  });
});

describe('the command', () => {
  const image = { entrypoint: ['/entry'], cmd: ['default'] };
  const cases: readonly [string[], string[], string[]][] = [
    [[], [], ['/entry', 'default']],
    [[], ['given'], ['/entry', 'given']],
    [['/other'], [], ['/other']],
    [['/other'], ['given'], ['/other', 'given']],
  ];
  for (const [command, args, wanted] of cases)
    it(`command [${command.join()}], args [${args.join()}]: ${wanted.join(' ')}`, () => {
      expect(commandOf({ command, args }, image)).to.deep.equal(wanted);
    });

  it('must be there', () => {
    expect(() => commandOf({ command: [], args: [] }, { entrypoint: [], cmd: [] })).to.throw(
      /nothing to run/,
    );
  });
});

describe('the environment', () => {
  const env = (key: string, value: string | Buffer): { key: string; valueBase64: string } => ({
    key,
    valueBase64: Buffer.from(value).toString('base64'),
  });

  it('is the runtime’s, the image’s, the container’s; later wins', () => {
    const built = environmentOf(
      { envs: [env('A', 'pod'), env('B', '=x='), env('A', 'last')], tty: true },
      ['PATH=/bin', 'A=image', 'EMPTY='],
      'box',
    );
    expect(built).to.deep.equal(['PATH=/bin', 'HOSTNAME=box', 'TERM=xterm', 'A=last', 'EMPTY=', 'B==x=']);
  });

  it('has a PATH when the image has none', () => {
    expect(environmentOf({ envs: [], tty: false }, [], 'box')[0]).to.match(/^PATH=\/usr\/local\/sbin:/);
  });

  it('refuses what cannot be passed on as it is', () => {
    for (const bad of [env('', 'x'), env('A=B', 'x'), env('A', Buffer.from([0xff])), env('A', 'x\0y')])
      expect(() => environmentOf({ envs: [bad], tty: false }, [], 'box')).to.throw();
  });
});

describe('the user', () => {
  const files = {
    passwd: 'root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\nbroken\nbig:x:99999999999:1:::\n:x:5:5:::\n',
    group: 'root:x:0:\nextra:x:50:app,other\nmore:x:60:root,app\nbroken:x\n',
  };
  const none = { supplementalGroups: [], supplementalGroupsPolicy: 'Merge' } as const;
  const images: readonly [string, number, number, number[]][] = [
    ['', 0, 0, [0, 60]],
    ['0', 0, 0, [0, 60]],
    ['app', 1000, 1001, [1001, 50, 60]],
    ['1000', 1000, 1001, [1001, 50, 60]],
    ['app:extra', 1000, 50, [50, 60]],
    ['app:77', 1000, 77, [77, 50, 60]],
    ['4242', 4242, 0, [0]],
    ['4242:50', 4242, 50, [50]],
    ['app:', 1000, 1001, [1001, 50, 60]],
    [':50', 0, 50, [50, 60]],
  ];
  for (const [user, uid, gid, supplementalGroups] of images)
    it(`of the image: '${user}'`, () => {
      expect(userOf(none, user, files)).to.deep.equal({ uid, gid, supplementalGroups });
    });

  it('of the pod wins over that of the image', () => {
    expect(userOf({ ...none, runAsUser: 1000 }, 'root', files)).to.include({ uid: 1000, gid: 1001 });
    expect(userOf({ ...none, runAsUser: 3000, runAsGroup: 4000 }, '', files)).to.deep.equal({
      uid: 3000,
      gid: 4000,
      supplementalGroups: [4000],
    });
    expect(userOf({ ...none, runAsUsername: 'app', runAsGroup: 9 }, '', files)).to.include({
      uid: 1000,
      gid: 9,
    });
  });

  it('has the groups that the policy says', () => {
    const given = { ...none, supplementalGroups: [7, 50, 7] };
    expect(userOf(given, 'app', files).supplementalGroups).to.deep.equal([1001, 50, 60, 7]);
    expect(
      userOf({ ...given, supplementalGroupsPolicy: 'Strict' }, 'app', files).supplementalGroups,
    ).to.deep.equal([1001, 7, 50]);
  });

  it('is refused when nobody knows it', () => {
    expect(() => userOf({ ...none, runAsGroup: 5 }, '', files)).to.throw(/without run_as_user/);
    for (const user of ['nobody', 'app:nogroup', 'big', '-1', '99999999999'])
      expect(() => userOf(none, user, files), user).to.throw(/the image has no/);
    for (const runAsUser of [-1, 1.5, 2 ** 32 - 1])
      expect(() => userOf({ ...none, runAsUser }, '', files)).to.throw(/run_as_user/);
  });
});

describe('capabilities', () => {
  const sets = (changes: Partial<ContainerSecurity>): readonly string[] =>
    capabilitiesOf({ ...testSecurity, ...changes }).permitted;

  it('are the default ones, plus and minus', () => {
    expect(sets({})).to.have.members(defaultCapabilities);
    expect(defaultCapabilities).to.have.length(14);
    expect(sets({ addCapabilities: ['net_admin'] })).to.include('CAP_NET_ADMIN');
    expect(sets({ dropCapabilities: ['CAP_CHOWN'] })).not.to.include('CAP_CHOWN');
    expect(sets({ addCapabilities: ['ALL'] })).to.deep.equal(allCapabilities);
    expect(sets({ addCapabilities: ['ALL'], dropCapabilities: ['SYS_ADMIN'] })).not.to.include(
      'CAP_SYS_ADMIN',
    );
    expect(sets({ addCapabilities: ['NET_ADMIN'], dropCapabilities: ['ALL'] })).to.deep.equal([
      'CAP_NET_ADMIN',
    ]);
    expect(allCapabilities).to.have.length(41);
  });

  it('are inherited only when they are ambient', () => {
    const built = capabilitiesOf({ ...testSecurity, addAmbientCapabilities: ['SYS_TIME'] });
    expect(built.ambient).to.deep.equal(['CAP_SYS_TIME']);
    expect(built.inheritable).to.deep.equal(['CAP_SYS_TIME']);
    expect(built.bounding).to.include('CAP_SYS_TIME');
    expect(capabilitiesOf(testSecurity).inheritable).to.deep.equal([]);
  });

  it('must exist', () => {
    expect(() => sets({ addCapabilities: ['SYS_MAGIC'] })).to.throw(/SYS_MAGIC/);
  });
});

describe('resources', () => {
  it('become cgroup limits; what is not set is not there', () => {
    expect(resourcesOf({}, false)).to.deep.equal({ devices: [{ allow: false, access: 'rwm' }] });
    const built = resourcesOf(
      {
        cpuShares: 2,
        cpuQuotaUs: 50_000,
        cpuPeriodUs: 100_000,
        memoryLimitBytes: 64,
        memorySwapLimitBytes: 64,
        cpusetCpus: '3',
        hugepageLimits: [{ pageSize: '2MB', limitBytes: 0 }],
        unified: { 'memory.oom.group': '1' },
      },
      false,
    );
    expect(built).to.deep.equal({
      devices: [{ allow: false, access: 'rwm' }],
      cpu: { shares: 2, quota: 50_000, period: 100_000 },
      memory: { limit: 64, swap: 64 },
      unified: { 'memory.oom.group': '1' },
    });
  });

  it('are refused when they cannot be kept', () => {
    expect(() => resourcesOf({ hugepageLimits: [{ pageSize: '2MB', limitBytes: 1 }] }, false)).to.throw(
      /huge/,
    );
    expect(() => resourcesOf({ unified: { '../x': '1' } }, false)).to.throw(/cgroup v2 file/);
    expect(() => resourcesOf({ memoryLimitBytes: 9, memorySwapLimitBytes: 8 }, false)).to.throw(
      /both together/,
    );
  });
});

describe('signals', () => {
  it('have names, numbers and real-time names', () => {
    expect(['', 'SIGTERM', 'term', '9', 'SIGRTMIN+3', 'RTMAX-1', 'SIGRTMIN'].map(signalNumber)).to.deep.equal(
      [15, 15, 15, 9, 37, 63, 34],
    );
    for (const bad of ['0', '65', 'SIGNOPE', 'RTMIN+99', '1x'])
      expect(() => signalNumber(bad)).to.throw(/signal/);
  });
});

describe('the default seccomp profile', () => {
  const ruleOf = (profile: ReturnType<typeof defaultSeccomp>, name: string): string[] =>
    profile.syscalls.filter((rule) => rule.names.includes(name)).map((rule) => rule.action);

  it('lets ordinary programs run', () => {
    const profile = defaultSeccomp(defaultCapabilities);
    for (const name of 'read write openat execve clone futex mmap socket connect epoll_wait statx getrandom rseq'.split(
      ' ',
    ))
      expect(ruleOf(profile, name), name).to.include('SCMP_ACT_ALLOW');
  });

  it('refuses what changes the kernel, and what a container needs no more', () => {
    const profile = defaultSeccomp(defaultCapabilities);
    expect(profile.defaultAction).to.equal('SCMP_ACT_ERRNO');
    const refused =
      'mount umount2 unshare setns bpf perf_event_open kexec_load init_module finit_module reboot swapon keyctl ' +
      'add_key request_key userfaultfd io_uring_setup pivot_root open_by_handle_at quotactl settimeofday iopl';
    for (const name of refused.split(' ')) expect(ruleOf(profile, name), name).to.deep.equal([]);
    expect(ruleOf(profile, 'clone3')).to.deep.equal(['SCMP_ACT_ERRNO']);
    const clone = profile.syscalls.find((rule) => rule.names.includes('clone'));
    expect(clone?.args?.[0]).to.include({ index: 0, op: 'SCMP_CMP_MASKED_EQ' });
  });

  it('opens with the capability that the kernel asks for', () => {
    const admin = defaultSeccomp([...defaultCapabilities, 'CAP_SYS_ADMIN']);
    for (const name of ['mount', 'unshare', 'clone3', 'bpf'])
      expect(ruleOf(admin, name)).to.deep.equal(['SCMP_ACT_ALLOW']);
    expect(ruleOf(defaultSeccomp(['CAP_SYS_TIME']), 'settimeofday')).to.deep.equal(['SCMP_ACT_ALLOW']);
    expect(ruleOf(defaultSeccomp([]), 'chroot')).to.deep.equal([]);
  });

  it('names each system call once for everybody', () => {
    const names = defaultSeccomp([]).syscalls.flatMap((rule) => (rule.args === undefined ? rule.names : []));
    expect(names.length).to.equal(new Set(names).size);
  });
});

describe('a seccomp profile of the node', () => {
  const facts = { capabilities: ['CAP_SYS_TIME'], kernelRelease: '6.1.0-40-amd64' };
  let directory: string;

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'herkos-seccomp-'));
  });

  after(async () => {
    await rm(directory, { recursive: true });
  });

  it('keeps the rules whose conditions hold', () => {
    const rule = (names: string[], more: object): object => ({ names, action: 'SCMP_ACT_ALLOW', ...more });
    const profile = convertSeccompProfile(
      {
        defaultAction: 'SCMP_ACT_ERRNO',
        defaultErrnoRet: 1,
        archMap: [
          { architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86'] },
          { architecture: 'SCMP_ARCH_AARCH64', subArchitectures: ['SCMP_ARCH_ARM'] },
        ],
        syscalls: [
          rule(['a'], {}),
          rule(['b'], { includes: { caps: ['CAP_SYS_TIME'] } }),
          rule(['c'], { includes: { caps: ['CAP_SYS_ADMIN'] } }),
          rule(['d'], { excludes: { caps: ['CAP_SYS_TIME'] } }),
          rule(['e'], { includes: { arches: ['s390'] } }),
          rule(['f'], { includes: { minKernel: '4.8' } }),
          rule(['g'], { includes: { minKernel: '6.12' } }),
          {
            name: 'h',
            action: 'SCMP_ACT_KILL',
            args: [{ index: 1, value: 2, valueTwo: 3, op: 'SCMP_CMP_EQ' }],
          },
        ],
      },
      facts,
    );
    expect(profile.architectures).to.deep.equal(['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86']);
    expect(profile.syscalls.flatMap((one) => one.names)).to.deep.equal(['a', 'b', 'f', 'h']);
    expect(profile.syscalls.at(-1)?.args).to.deep.equal([
      { index: 1, value: 2, valueTwo: 3, op: 'SCMP_CMP_EQ' },
    ]);
  });

  it('is refused when it is not one, without a word of its content', async () => {
    const bad = [
      'top secret',
      '[]',
      '{}',
      '{"defaultAction":"secret"}',
      '{"defaultAction":"SCMP_ACT_NOTIFY"}',
      '{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/secret"}',
      '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[],"action":"SCMP_ACT_ALLOW"}]}',
      '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW","args":[{"index":9,"op":"SCMP_CMP_EQ"}]}]}',
    ];
    for (const [index, text] of bad.entries()) {
      const path = join(directory, `${String(index)}.json`);
      await writeFile(path, text);
      const error = await rejection(readSeccompProfile(path, facts));
      expect(classOf(error), text).to.equal('InvalidArgument');
      expect(messageOf(error)).not.to.match(/secret/);
    }
  });

  it('is refused when it is no file, not there or too long', async () => {
    const long = join(directory, 'long');
    await writeFile(long, ' '.repeat(1024 * 1024 + 1));
    for (const path of [directory, '/dev/zero', join(directory, 'none'), long])
      expect(classOf(await rejection(readSeccompProfile(path, facts))), path).to.equal('InvalidArgument');
  });
});

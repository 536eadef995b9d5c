import { expect } from 'chai';

import type { Finding } from '../../../cmd/herkosctl/doctor-finding.js';
import type { DoctorHost } from '../../../cmd/herkosctl/doctor-host.js';
import type { DaemonView } from '../../../cmd/herkosctl/doctor-node.js';
import { examine } from '../../../cmd/herkosctl/doctor.js';
import { Exit } from '../../../cmd/herkosctl/exit-codes.js';
import { GIB, MIB } from '../../../lib/base/units.js';
import { parseConfig } from '../../../lib/config/load.js';
import { Harness } from '../cri/harness.js';
import { herkosctl } from './cli.js';
import { hostHelper } from '../../tools/host-helper.js';

const daemon: DaemonView = {
  version: '0.1.0',
  conditions: [
    { type: 'RuntimeReady', status: true, message: '' },
    { type: 'NetworkReady', status: true, message: '' },
  ],
  accelerator: 'kvm',
  acceleratorWhy: 'a guest booted with it',
};

const healthyFiles: Readonly<Record<string, string>> = {
  '/lib/modules/6.1.0/modules.builtin': 'kernel/net/core/veth.ko\n',
  '/lib/modules/6.1.0/modules.dep':
    'kernel/net/sched/sch_ingress.ko.xz:\nkernel/net/sched/act_mirred.ko.xz: kernel/a.ko\nkernel/net/bridge/bridge.ko: kernel/net/llc/llc.ko\n',
  '/sys/fs/cgroup/cgroup.controllers': 'cpuset cpu io memory pids\n',
  '/proc/sys/net/ipv4/ip_forward': '1\n',
  '/proc/self/limits': 'Max open files            1024                 524288               files\n',
  '/proc/sys/kernel/pid_max': '4194304\n',
  '/proc/meminfo': 'MemTotal: 8000000 kB\nMemAvailable:    4000000 kB\n',
};

const healthyFolders: Readonly<Record<string, readonly string[]>> = {
  '/dev': ['kvm', 'null'],
  '/sys/module': ['nf_tables', 'kvm'],
  '/usr/lib/cni': ['bridge', 'host-local', 'portmap', 'loopback'],
  '/etc/cni/net.d': ['10-net.conflist', 'README'],
};

interface Sickness {
  readonly files?: Readonly<Record<string, string | undefined>>;
  readonly folders?: Readonly<Record<string, readonly string[]>>;
  readonly missing?: readonly string[];
  readonly freeBytes?: number;
}

function host({ files = {}, folders = {}, missing = [], freeBytes = 100 * GIB }: Sickness = {}): DoctorHost {
  return {
    kernelRelease: '6.1.0',
    read: (path) => Promise.resolve(path in files ? files[path] : healthyFiles[path]),
    list: (path) => Promise.resolve(folders[path] ?? healthyFolders[path] ?? []),
    mayReadWrite: (path) => Promise.resolve(!missing.includes(path)),
    which: (program) => Promise.resolve(missing.includes(program) ? undefined : `/usr/bin/${program}`),
    firstLine: () => Promise.resolve('QEMU emulator version 7.2'),
    space: () => Promise.resolve({ freeBytes, totalBytes: 200 * GIB }),
  };
}

const look = async (sickness: Sickness = {}, view: DaemonView | undefined = daemon): Promise<Finding[]> =>
  examine(host(sickness), { daemon: view, problem: 'nobody serves', config: parseConfig('', 'test') });
const sick = async (sickness: Sickness, view: DaemonView | undefined = daemon): Promise<Finding[]> =>
  (await look(sickness, view)).filter(({ level }) => level !== 'OK');

describe('herkosctl doctor', () => {
  it('finds nothing on a healthy node', async () => {
    expect(await sick({})).to.deep.equal([]);
    expect((await look()).map(({ check }) => check)).to.include.members([
      ...['daemon', 'acceleration', 'qemu', 'program: ip', 'CNI plugins', 'CNI network', 'kernel: tc mirred'],
      ...['cgroups', 'IP forwarding', 'disk space', 'memory', 'limit: open files', 'limit: pid_max'],
    ]);
  });

  const cases: readonly (readonly [what: string, Sickness, level: string, check: string])[] = [
    ['a program that is missing', { missing: ['mkfs.ext4'] }, 'FAIL', 'program: mkfs.ext4'],
    ['no QEMU', { missing: ['qemu-system-x86_64'] }, 'FAIL', 'qemu'],
    ['no host helper', { missing: [hostHelper] }, 'FAIL', 'herkos-host'],
    ['no zstd', { missing: ['zstd'] }, 'WARN', 'program: zstd'],
    ['no CNI plugins', { folders: { '/usr/lib/cni': ['bridge'] } }, 'FAIL', 'CNI plugins'],
    [
      'a kernel without nf_tables',
      { folders: { '/sys/module': [] } },
      'FAIL',
      'kernel: nftables or iptables',
    ],
    ['no tun', { missing: ['/dev/net/tun'] }, 'FAIL', 'kernel: tap devices'],
    [
      'cgroups without pids',
      { files: { '/sys/fs/cgroup/cgroup.controllers': 'cpu memory' } },
      'WARN',
      'cgroups',
    ],
    ['no cgroups', { files: { '/sys/fs/cgroup/cgroup.controllers': undefined } }, 'FAIL', 'cgroups'],
    ['no forwarding', { files: { '/proc/sys/net/ipv4/ip_forward': '0' } }, 'WARN', 'IP forwarding'],
    ['a full disk', { freeBytes: 100 * MIB }, 'FAIL', 'disk space'],
    ['a nearly full disk', { freeBytes: 2 * GIB }, 'WARN', 'disk space'],
    ['little memory', { files: { '/proc/meminfo': 'MemAvailable: 1000 kB' } }, 'WARN', 'memory'],
    [
      'few files',
      { files: { '/proc/self/limits': 'Max open files 1024 4096 files' } },
      'WARN',
      'limit: open files',
    ],
    ['few pids', { files: { '/proc/sys/kernel/pid_max': '1000' } }, 'WARN', 'limit: pid_max'],
  ];
  for (const [what, sickness, level, check] of cases) {
    it(`finds ${what}, and nothing else`, async () => {
      const findings = await sick(sickness);
      expect(findings.map((finding) => [finding.level, finding.check])).to.deep.equal([[level, check]]);
      expect(findings[0]?.hint).to.not.equal('');
    });
  }

  it('cannot tell what a kernel has whose module lists are not there', async () => {
    const files = {
      '/lib/modules/6.1.0/modules.builtin': undefined,
      '/lib/modules/6.1.0/modules.dep': undefined,
    };
    const findings = await sick({ files });
    expect(findings.map(({ level }) => level)).to.deep.equal(['WARN', 'WARN', 'WARN', 'WARN']);
    expect(findings[0]?.found).to.contain('cannot tell');
  });

  it('knows version 1 and hybrid cgroups', async () => {
    const files = { '/sys/fs/cgroup/cgroup.controllers': undefined };
    const folders = { '/sys/fs/cgroup': ['cpu,cpuacct', 'memory', 'pids'] };
    const told = async (more: string[]): Promise<string | undefined> =>
      (await look({ files, folders: { '/sys/fs/cgroup': [...folders['/sys/fs/cgroup'], ...more] } })).find(
        ({ check }) => check === 'cgroups',
      )?.found;
    expect(await told([])).to.equal('version 1');
    expect(await told(['unified'])).to.equal('hybrid');
  });

  it('believes the daemon, and not /dev/kvm', async () => {
    const view = { ...daemon, accelerator: 'tcg', acceleratorWhy: 'the guest did not boot with KVM' };
    const [finding] = await sick({}, view);
    expect(finding).to.include({ level: 'WARN', check: 'acceleration' });
    expect(finding?.found).to.contain('did not boot').and.contain('/dev/kvm is there');
  });

  it('tells which condition of the daemon is false, and why', async () => {
    const conditions = [{ type: 'NetworkReady', status: false, message: 'no CNI configuration' }];
    const [finding] = await sick({}, { ...daemon, conditions });
    expect(finding).to.include({
      level: 'FAIL',
      check: 'daemon: NetworkReady',
      found: 'no CNI configuration',
    });
  });

  it('goes on without a daemon', async () => {
    const findings = await examine(host(), {
      daemon: undefined,
      problem: 'nobody serves',
      config: parseConfig('', 'x'),
    });
    const bad = findings.filter(({ level }) => level !== 'OK');
    expect(bad.map(({ check }) => check)).to.deep.equal(['daemon', 'acceleration']);
    expect(bad[0]).to.include({ level: 'FAIL', found: 'nobody serves' });
  });

  it('looks at this very node', async () => {
    const cri = await Harness.start();
    try {
      cri.pods.network = { ready: false, reason: 'NetworkPluginNotReady', message: 'no network yet' };
      const { stdout, error } = await herkosctl(cri.socketPath, ['doctor', '-o', 'json']);
      const findings = JSON.parse(stdout) as Finding[];
      expect(findings).to.deep.include({ level: 'OK', check: 'daemon', found: 'version 0.1.0', hint: '' });
      expect(findings.find(({ check }) => check === 'daemon: NetworkReady')).to.include({
        found: 'no network yet',
      });
      expect(error).to.be.instanceOf(Exit).with.property('code', 1);
    } finally {
      await cri.stop();
    }
  });
}).timeout(120_000);

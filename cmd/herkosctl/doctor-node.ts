import { formatBytes, GIB, MIB } from '../../lib/base/units.js';
import type { Config } from '../../lib/config/load.js';
import { hostHelperOf } from '../../lib/config/node.js';
import type { Finding } from './doctor-finding.js';
import { fail, ok, warn } from './doctor-finding.js';
import type { DoctorHost } from './doctor-host.js';

/** Programs that pods need, and the Debian package that has them. */
const programs: readonly (readonly [string, string])[] = [
  ['ip', 'iproute2'],
  ['tc', 'iproute2'],
  ['nsenter', 'util-linux'],
  ['mkfs.ext4', 'e2fsprogs'],
];

/** What the built-in network and the usual configurations call. */
const plugins: readonly string[] = ['bridge', 'host-local', 'portmap', 'loopback'];

const freeBytesFail = 512 * MIB;
const freeBytesWarn = 5 * GIB;

/** What the daemon says of itself; undefined when it does not answer. */
export interface DaemonView {
  readonly version: string;
  readonly conditions: readonly {
    readonly type: string;
    readonly status: boolean;
    readonly message: string;
  }[];
  readonly accelerator: string;
  readonly acceleratorWhy: string;
}

export function checkDaemon(daemon: DaemonView | undefined, problem: string): Finding[] {
  if (daemon === undefined)
    return [fail('daemon', problem, 'start it: systemctl start herkosd, or herkosd --config FILE')];
  return [
    ok('daemon', `version ${daemon.version}`),
    ...daemon.conditions.map(({ type, status, message }) =>
      status
        ? ok(`daemon: ${type}`, 'true')
        : fail(`daemon: ${type}`, message, 'the message says why; see its log'),
    ),
  ];
}

/** `/dev/kvm` proves nothing; only the daemon, which has booted a guest with it, knows. */
export async function checkAcceleration(
  host: DoctorHost,
  daemon: DaemonView | undefined,
): Promise<Finding[]> {
  return [await accelerationFinding(host, daemon)];
}

async function accelerationFinding(host: DoctorHost, daemon: DaemonView | undefined): Promise<Finding> {
  const device = (await host.list('/dev')).includes('kvm');
  const usable = device && (await host.mayReadWrite('/dev/kvm'));
  const seen = !device
    ? 'no /dev/kvm'
    : usable
      ? '/dev/kvm is there'
      : '/dev/kvm is there, but not for this user';
  const hint = device
    ? 'machines are emulated, which is slow; look whether this host may use nested virtualisation'
    : 'machines are emulated, which is slow; enable virtualisation in the firmware or the hypervisor, then: modprobe kvm';
  if (daemon === undefined || daemon.accelerator === '')
    return usable
      ? warn('acceleration', `${seen}; not proven`, 'start the daemon: it boots a guest to find out')
      : warn('acceleration', seen, hint);
  if (daemon.accelerator === 'kvm') return ok('acceleration', `kvm: ${daemon.acceleratorWhy}`);
  return warn('acceleration', `${daemon.accelerator}: ${daemon.acceleratorWhy} (${seen})`, hint);
}

export async function checkPrograms(host: DoctorHost, config: Config): Promise<Finding[]> {
  const { qemu } = config.vm;
  const found = await Promise.all(
    programs.map(async ([program, debian]) => {
      const path = await host.which(program);
      if (path !== undefined) return ok(`program: ${program}`, path);
      return fail(`program: ${program}`, 'not found', `install it: apt-get install ${debian}`);
    }),
  );
  const zstd = await host.which('zstd');
  const hostHelper = hostHelperOf(config.node);
  return [
    (await host.which(hostHelper)) === undefined
      ? fail(
          'herkos-host',
          `no program ${hostHelper}`,
          'build it with hack/quickstart, or set host_helper in [node]',
        )
      : ok('herkos-host', hostHelper),
    (await host.which(qemu)) === undefined
      ? fail('qemu', `${qemu} not found`, 'install it: apt-get install qemu-system-x86')
      : ok('qemu', await host.firstLine(qemu, ['--version'])),
    ...found,
    zstd === undefined
      ? warn('program: zstd', 'not found', 'zstd layers unpack several times slower: apt-get install zstd')
      : ok('program: zstd', zstd),
  ];
}

export async function checkCni(host: DoctorHost, config: Config): Promise<Finding[]> {
  const { bin_dirs: folders, conf_dir: configuration } = config.network;
  const there = new Set((await Promise.all(folders.map(async (folder) => host.list(folder)))).flat());
  const missing = plugins.filter((plugin) => !there.has(plugin));
  const networks = (await host.list(configuration))
    .filter((name) => /\.(conf|conflist|json)$/.test(name))
    .sort();
  const where = folders.join(', ');
  return [
    missing.length === 0
      ? ok('CNI plugins', `${String(there.size)} in ${where}`)
      : fail(
          'CNI plugins',
          `${missing.join(', ')} not in ${where}`,
          'install them: apt-get install containernetworking-plugins',
        ),
    networks.length === 0
      ? ok('CNI network', `none in ${configuration}; the built-in one is used`)
      : ok('CNI network', `${configuration}/${networks[0] ?? ''}`),
  ];
}

export async function checkSpace(host: DoctorHost, config: Config): Promise<Finding[]> {
  const path = config.node.state_dir;
  const { freeBytes, totalBytes } = await host.space(path);
  const found = `${formatBytes(freeBytes)} of ${formatBytes(totalBytes)} free for ${path}`;
  const hint = 'remove images (herkosctl image rm), or move node.state_dir to a larger file system';
  if (freeBytes < freeBytesFail) return [fail('disk space', found, hint)];
  return [freeBytes < freeBytesWarn ? warn('disk space', found, hint) : ok('disk space', found)];
}

export async function checkMemory(host: DoctorHost, config: Config): Promise<Finding[]> {
  const kib = Number(
    /^MemAvailable:\s+(\d+) kB/m.exec((await host.read('/proc/meminfo')) ?? '')?.[1] ?? Number.NaN,
  );
  const podBytes = config.vm.memory + config.vm.memory_overhead;
  const availableBytes = kib * 1024;
  const found = `${formatBytes(availableBytes)} available; a pod without limits takes up to ${formatBytes(podBytes)}`;
  return [
    availableBytes >= podBytes
      ? ok('memory', found)
      : warn('memory', found, 'end something, or lower vm.memory in the configuration'),
  ];
}

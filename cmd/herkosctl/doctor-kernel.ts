import type { DoctorHost } from './doctor-host.js';
import type { Finding } from './doctor-finding.js';
import { fail, ok, warn } from './doctor-finding.js';

/** Kernel parts by module name: where their absence shows, and what needs them. */
const features: readonly (readonly [name: string, modules: readonly string[], need: string])[] = [
  ['tap devices', ['tun'], 'the network of every pod'],
  ['veth', ['veth'], 'the network of every pod'],
  ['tc ingress', ['sch_ingress'], 'the path between CNI and the tap'],
  ['tc mirred', ['act_mirred'], 'the path between CNI and the tap'],
  ['bridge', ['bridge'], 'the built-in network and the bridge plugin'],
  ['nftables or iptables', ['nf_tables', 'ip_tables'], 'masquerading and host ports'],
];

const pidMaxMin = 32_768;
const openFilesMin = 16_384;

export async function checkKernel(host: DoctorHost): Promise<Finding[]> {
  const known = await kernelModules(host);
  const found = features.map(([name, modules, need]) => {
    const there = modules.filter((module) => known.names.has(module));
    if (there.length > 0) return ok(`kernel: ${name}`, there.join(', '));
    if (!known.complete)
      return warn(
        `kernel: ${name}`,
        'cannot tell: not loaded, and the list of this kernel’s modules is not readable',
        `needed for ${need}; install the modules of kernel ${host.kernelRelease}, or load ${modules.join(' or ')}`,
      );
    const hint = `needed for ${need}; take a kernel with ${modules.join(' or ')}`;
    return fail(`kernel: ${name}`, 'this kernel does not have it', hint);
  });
  return [...found, await checkCgroup(host), await checkForwarding(host)];
}

/** Loaded, built in, or there to be loaded. `/dev/net/tun` proves tun whatever the lists say. */
async function kernelModules(host: DoctorHost): Promise<{ names: Set<string>; complete: boolean }> {
  const names = new Set<string>();
  const add = (path: string): void => {
    const module = /([^/]+?)\.ko(\.\w+)?:?$/.exec(path)?.[1];
    if (module !== undefined) names.add(module.replaceAll('-', '_'));
  };
  for (const loaded of await host.list('/sys/module')) names.add(loaded);
  const folder = `/lib/modules/${host.kernelRelease}`;
  const builtin = await host.read(`${folder}/modules.builtin`);
  const loadable = await host.read(`${folder}/modules.dep`);
  for (const line of (builtin ?? '').split('\n')) add(line.trim());
  for (const line of (loadable ?? '').split('\n')) add(line.split(' ')[0] ?? '');
  if (await host.mayReadWrite('/dev/net/tun')) names.add('tun');
  return { names, complete: builtin !== undefined && loadable !== undefined };
}

async function checkCgroup(host: DoctorHost): Promise<Finding> {
  const v2 = await host.read('/sys/fs/cgroup/cgroup.controllers');
  const needed = ['cpu', 'memory', 'pids'];
  const folders = await host.list('/sys/fs/cgroup');
  const there = v2 === undefined ? folders : v2.trim().split(' ');
  const mode = v2 !== undefined ? 'version 2' : folders.includes('unified') ? 'hybrid' : 'version 1';
  if (v2 === undefined && folders.length === 0)
    return fail('cgroups', '/sys/fs/cgroup is empty', 'mount cgroups; systemd does that at boot');
  const missing = needed.filter(
    (name) => !there.some((entry) => entry === name || entry.split(',').includes(name)),
  );
  if (missing.length === 0) return ok('cgroups', mode);
  return warn(
    'cgroups',
    `${mode}, without ${missing.join(', ')}`,
    'limits of those kinds are not enforced for the machines; enable the controllers',
  );
}

async function checkForwarding(host: DoctorHost): Promise<Finding> {
  const value = (await host.read('/proc/sys/net/ipv4/ip_forward'))?.trim();
  if (value === '1') return ok('IP forwarding', 'on');
  return warn(
    'IP forwarding',
    value === undefined ? 'cannot tell' : 'off',
    'pods cannot reach other networks until it is on (the bridge plugin switches it on): sysctl -w net.ipv4.ip_forward=1',
  );
}

/** Limits of this shell; the daemon's own come from its service file. */
export async function checkLimits(host: DoctorHost): Promise<Finding[]> {
  const limits = (await host.read('/proc/self/limits')) ?? '';
  const openFiles = Number(/^Max open files\s+\S+\s+(\d+)/m.exec(limits)?.[1] ?? Number.NaN);
  const pidMax = Number((await host.read('/proc/sys/kernel/pid_max')) ?? Number.NaN);
  return [
    openFiles >= openFilesMin
      ? ok('limit: open files', `${String(openFiles)} (hard)`)
      : warn(
          'limit: open files',
          String(openFiles),
          `a node with many pods needs ${String(openFilesMin)}: LimitNOFILE= in the daemon's service file`,
        ),
    pidMax >= pidMaxMin
      ? ok('limit: pid_max', String(pidMax))
      : warn('limit: pid_max', String(pidMax), `sysctl -w kernel.pid_max=${String(pidMaxMin)} or more`),
  ];
}

import { HerkosError } from '../../base/errors.js';
import type { ContainerConfig } from '../../model/container.js';
import type { OciMount } from '../../wire/ocispec/types.js';
import { guestPaths } from './guest-paths.js';

/**
 * The mounts every container has. Those of the pod (names, resolver, shared memory) are files of the guest
 * that all its containers share.
 */
export function standardMounts(privileged: boolean, readonlyRootfs: boolean): OciMount[] {
  const access = privileged ? 'rw' : 'ro';
  // A read-only root means its files cannot be changed; the pod's own files are then no exception.
  const files = readonlyRootfs ? 'ro' : 'rw';
  return [
    mount('/proc', 'proc', 'proc', ['nosuid', 'noexec', 'nodev']),
    mount('/dev', 'tmpfs', 'tmpfs', ['nosuid', 'strictatime', 'mode=755', 'size=65536k']),
    mount('/dev/pts', 'devpts', 'devpts', [
      'nosuid',
      'noexec',
      'newinstance',
      'ptmxmode=0666',
      'mode=0620',
      'gid=5',
    ]),
    mount('/dev/mqueue', 'mqueue', 'mqueue', ['nosuid', 'noexec', 'nodev']),
    mount('/dev/shm', 'bind', guestPaths.shm, ['rbind', 'nosuid', 'noexec', 'nodev']),
    mount('/sys', 'sysfs', 'sysfs', ['nosuid', 'noexec', 'nodev', access]),
    mount('/sys/fs/cgroup', 'cgroup', 'cgroup', ['nosuid', 'noexec', 'nodev', 'relatime', access]),
    mount('/etc/hostname', 'bind', guestPaths.hostname, ['bind', files]),
    mount('/etc/hosts', 'bind', guestPaths.hosts, ['bind', files]),
    mount('/etc/resolv.conf', 'bind', guestPaths.resolvConf, ['bind', files]),
  ];
}

function mount(destination: string, type: string, source: string, options: readonly string[]): OciMount {
  return { destination, type, source, options };
}

/** Nothing that was asked for is ever left out silently. @throws Unimplemented that names the first mount */
export function refuseMounts(config: Pick<ContainerConfig, 'mounts'>): void {
  const first = config.mounts[0];
  if (first === undefined) return;
  const source = first.image === '' ? first.hostPath : `image ${first.image}`;
  throw new HerkosError(
    'Unimplemented',
    `the mount of ${source} at ${first.containerPath} cannot be made: volumes are not supported yet`,
    { reason: 'MOUNT_UNSUPPORTED' },
  );
}

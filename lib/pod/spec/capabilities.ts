import { HerkosError } from '../../base/errors.js';
import type { ContainerSecurity } from '../../model/container.js';
import type { OciCapabilities } from '../../wire/ocispec/types.js';

/** Every capability of Linux 6.1, by number (capabilities(7)). */
export const allCapabilities: readonly string[] = (
  'CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE ' +
  'NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT ' +
  'SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE ' +
  'AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ ' +
  'PERFMON BPF CHECKPOINT_RESTORE'
)
  .split(' ')
  .map((name) => `CAP_${name}`);

/** What a container has unless told otherwise: the fourteen that image authors rely on. */
export const defaultCapabilities: readonly string[] = (
  'CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE ' +
  'SYS_CHROOT KILL AUDIT_WRITE'
)
  .split(' ')
  .map((name) => `CAP_${name}`);

type Wanted = Pick<
  ContainerSecurity,
  'privileged' | 'addCapabilities' | 'dropCapabilities' | 'addAmbientCapabilities'
>;

/**
 * The capability sets. `ALL` is applied before single names, adding before dropping, so that
 * `add: [ALL], drop: [X]` and `drop: [ALL], add: [X]` both mean what they say. Nothing is inheritable but
 * the ambient ones: a binary with inheritable file capabilities would gain them (CVE-2022-24769).
 * @throws InvalidArgument for a name that is no capability
 */
export function capabilitiesOf(security: Wanted): OciCapabilities {
  const ambient = security.addAmbientCapabilities.flatMap(namesOf);
  const all = security.privileged ? [...allCapabilities] : listOf(security);
  const permitted = sorted([...all, ...ambient]);
  return {
    bounding: permitted,
    effective: permitted,
    permitted,
    inheritable: sorted(ambient),
    ambient: sorted(ambient),
  };
}

function listOf(security: Wanted): string[] {
  const adds = security.addCapabilities.map(normalise);
  const drops = security.dropCapabilities.map(normalise);
  let start = adds.includes('CAP_ALL') ? allCapabilities : defaultCapabilities;
  if (drops.includes('CAP_ALL')) start = [];
  const kept = new Set(start);
  for (const name of adds) if (name !== 'CAP_ALL') kept.add(known(name));
  for (const name of drops) if (name !== 'CAP_ALL') kept.delete(known(name));
  return [...kept];
}

function namesOf(name: string): readonly string[] {
  const full = normalise(name);
  return full === 'CAP_ALL' ? allCapabilities : [known(full)];
}

function normalise(name: string): string {
  const upper = name.toUpperCase();
  return upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
}

function known(name: string): string {
  if (!allCapabilities.includes(name))
    throw new HerkosError(
      'InvalidArgument',
      `'${name}' is not a capability; see capabilities(7) for the names`,
    );
  return name;
}

/** By number, as every tool prints them. */
function sorted(names: readonly string[]): string[] {
  return allCapabilities.filter((name) => names.includes(name));
}

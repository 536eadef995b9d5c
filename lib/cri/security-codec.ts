import { constants } from 'node:os';

import type { ContainerSecurity, SeccompProfile } from '../model/container.js';
import { v1 } from './api.js';
import { enumName, integer, invalid, requiredAbsolutePath, shown, unsupported } from './checks.js';
import { decodeNamespaceOptions } from './namespace-codec.js';

/** The kernel's ids are 32 bits wide, and the highest one means "unchanged". */
const idMax = 2 ** 32 - 2;
const groupsMax = 65_536;

const profileTypes: Readonly<Record<number, SeccompProfile['type']>> = {
  [v1.SecurityProfile.ProfileType.RuntimeDefault]: 'RuntimeDefault',
  [v1.SecurityProfile.ProfileType.Unconfined]: 'Unconfined',
  [v1.SecurityProfile.ProfileType.Localhost]: 'Localhost',
};

const policies: Readonly<Record<number, ContainerSecurity['supplementalGroupsPolicy']>> = {
  [v1.SupplementalGroupsPolicy.Merge]: 'Merge',
  [v1.SupplementalGroupsPolicy.Strict]: 'Strict',
};

/** What a container may do, and as whom. What the guest cannot enforce is refused, never left out. */
export function decodeSecurity(
  from: v1.LinuxContainerSecurityContext.$Properties | null | undefined,
  field: string,
): ContainerSecurity {
  refuseSelinux(from?.selinuxOptions, `${field}.selinux_options`);
  refuseLocalApparmor(from?.apparmor, `${field}.apparmor`);
  refuseNamedApparmor(from?.apparmorProfile ?? '', `${field}.apparmor_profile`);
  return {
    privileged: from?.privileged ?? false,
    namespaceOptions: decodeNamespaceOptions(from?.namespaceOptions, `${field}.namespace_options`),
    ...decodeUser(from, field),
    supplementalGroups: decodeGroups(from?.supplementalGroups ?? [], `${field}.supplemental_groups`),
    supplementalGroupsPolicy: enumName(
      policies,
      from?.supplementalGroupsPolicy,
      `${field}.supplemental_groups_policy`,
    ),
    readonlyRootfs: from?.readonlyRootfs ?? false,
    noNewPrivs: from?.noNewPrivs ?? false,
    addCapabilities: from?.capabilities?.addCapabilities ?? [],
    dropCapabilities: from?.capabilities?.dropCapabilities ?? [],
    addAmbientCapabilities: from?.capabilities?.addAmbientCapabilities ?? [],
    maskedPaths: from?.maskedPaths ?? [],
    readonlyPaths: from?.readonlyPaths ?? [],
    seccomp: decodeSeccomp(from, field),
  };
}

type User = Pick<ContainerSecurity, 'runAsUser' | 'runAsUsername' | 'runAsGroup'>;

function decodeUser(
  from: v1.LinuxContainerSecurityContext.$Properties | null | undefined,
  field: string,
): User {
  const name = from?.runAsUsername ?? '';
  const user = from?.runAsUser;
  const group = from?.runAsGroup;
  if (group && !user && name === '')
    throw invalid(`${field}.run_as_group needs run_as_user or run_as_username beside it`);
  return {
    ...(user ? { runAsUser: integer(user.value, `${field}.run_as_user`, 0, idMax) } : {}),
    ...(name === '' ? {} : { runAsUsername: name }),
    ...(group ? { runAsGroup: integer(group.value, `${field}.run_as_group`, 0, idMax) } : {}),
  };
}

function decodeGroups(groups: readonly Parameters<typeof integer>[0][], field: string): number[] {
  if (groups.length > groupsMax) throw invalid(`${field}: more than ${String(groupsMax)} groups`);
  return groups.map((group) => integer(group, field, 0, idMax));
}

/** `seccomp` wins over the deprecated path; neither means unconfined. */
function decodeSeccomp(
  from: v1.LinuxContainerSecurityContext.$Properties | null | undefined,
  field: string,
): SeccompProfile {
  const profile = from?.seccomp;
  if (profile) {
    const type = enumName(profileTypes, profile.profileType, `${field}.seccomp.profile_type`);
    if (type !== 'Localhost') return { type };
    return { type, path: requiredAbsolutePath(profile.localhostRef, `${field}.seccomp.localhost_ref`) };
  }
  const path = from?.seccompProfilePath ?? '';
  if (path === '' || path === 'unconfined') return { type: 'Unconfined' };
  if (path === 'runtime/default' || path === 'docker/default') return { type: 'RuntimeDefault' };
  const local = /^localhost\/(.*)$/s.exec(path)?.[1];
  if (local === undefined)
    throw invalid(`${field}.seccomp_profile_path '${shown(path)}' is not a seccomp profile`);
  return { type: 'Localhost', path: requiredAbsolutePath(local, `${field}.seccomp_profile_path`) };
}

/** An option without any part is as good as none. */
export function refuseSelinux(from: v1.SELinuxOption.$Properties | null | undefined, field: string): void {
  if (from && [from.user, from.role, from.type, from.level].some((part) => part))
    throw unsupported(`${field}: SELinux labels are not supported; the guest kernel has no SELinux policy`);
}

/** A profile of the node cannot confine what runs under another kernel. */
export function refuseLocalApparmor(
  from: v1.SecurityProfile.$Properties | null | undefined,
  field: string,
): void {
  if (from && enumName(profileTypes, from.profileType, `${field}.profile_type`) === 'Localhost')
    throw unsupported(
      `${field}: the AppArmor profile '${shown(from.localhostRef ?? '')}' of the node does not exist in the guest; ` +
        'use RuntimeDefault or Unconfined',
    );
}

function refuseNamedApparmor(profile: string, field: string): void {
  if (!['', 'runtime/default', 'unconfined'].includes(profile))
    throw unsupported(`${field}: the AppArmor profile '${shown(profile)}' does not exist in the guest`);
}

const realTimeMin = 34;
const realTimeMax = 64;

/** `SIGTERM`, `SIGRTMIN+3`; empty when the runtime is to choose. */
export function decodeSignal(value: v1.Signal | null | undefined, field: string): string {
  const name = enumName(v1.Signal as unknown as Record<number, string>, value, field);
  if (name === 'SIGNAL_RUNTIME_DEFAULT') return '';
  return name.replace('SIGNAL_', '').replace('PLUS', '+').replace('MINUS', '-');
}

/** The API's name for a signal number as containers see it. */
export function encodeSignal(number: number): v1.Signal {
  const names = v1.Signal as unknown as Readonly<Record<string, v1.Signal>>;
  return names[`SIGNAL_${signalName(number)}`] ?? v1.Signal.SIGNAL_RUNTIME_DEFAULT;
}

function signalName(number: number): string {
  if (number >= realTimeMin && number <= realTimeMax) return realTimeName(number);
  // Several names share a number; the first one is the usual one.
  return Object.entries(constants.signals).find(([, value]) => value === number)?.[0] ?? '';
}

/** The API counts from both ends, as `kill -l` does: 15 steps up from the first, 14 down from the last. */
function realTimeName(number: number): string {
  const up = number - realTimeMin;
  const down = realTimeMax - number;
  if (up <= realTimeStepsUpMax) return up === 0 ? 'SIGRTMIN' : `SIGRTMINPLUS${String(up)}`;
  return down === 0 ? 'SIGRTMAX' : `SIGRTMAXMINUS${String(down)}`;
}

const realTimeStepsUpMax = 15;

import type { NamespaceMode, NamespaceOptions } from '../model/sandbox.js';
import { v1 } from './api.js';
import { enumName, unsupported } from './checks.js';

const modes: Readonly<Record<number, NamespaceMode>> = {
  [v1.NamespaceMode.POD]: 'POD',
  [v1.NamespaceMode.CONTAINER]: 'CONTAINER',
  [v1.NamespaceMode.NODE]: 'NODE',
  [v1.NamespaceMode.TARGET]: 'TARGET',
};

/**
 * Absent options mean that everything is shared within the pod: POD is the zero value. Namespaces of the
 * node do not exist inside a virtual machine, and such a pod never runs outside one: it is refused.
 */
export function decodeNamespaceOptions(
  options: v1.NamespaceOption.$Properties | null | undefined,
  field: string,
): NamespaceOptions {
  const network = enumName(modes, options?.network, `${field}.network`);
  const pid = enumName(modes, options?.pid, `${field}.pid`);
  const ipc = enumName(modes, options?.ipc, `${field}.ipc`);
  for (const [kind, mode] of [
    ['network', network],
    ['PID', pid],
    ['IPC', ipc],
  ] as const)
    if (mode === 'NODE')
      throw unsupported(
        `the pod asks for the node's ${kind} namespace, which a virtual machine cannot share; ` +
          'run this pod with another RuntimeClass',
      );
  if (network !== 'POD' || ipc !== 'POD')
    throw unsupported(
      `${field}: containers of a pod share its network and IPC; ${network}/${ipc} is not possible`,
    );
  refuseUserNamespace(options?.usernsOptions, field);
  return { network, pid, ipc, targetId: options?.targetId ?? '' };
}

/** Mode POD asks for user ids of the pod's own, which the guest's containers do not have yet. */
function refuseUserNamespace(user: v1.UserNamespace.$Properties | null | undefined, field: string): void {
  if (user === null || user === undefined) return;
  const mode = enumName(modes, user.mode, `${field}.userns_options.mode`);
  if (mode === 'NODE') return;
  throw unsupported(
    `${field}.userns_options: user namespaces (mode ${mode}) are not supported; the pod already has a kernel of its own`,
  );
}

export function encodeNamespaceOptions(options: NamespaceOptions): v1.NamespaceOption.$Properties {
  return {
    network: v1.NamespaceMode[options.network],
    pid: v1.NamespaceMode[options.pid],
    ipc: v1.NamespaceMode[options.ipc],
    targetId: options.targetId,
  };
}

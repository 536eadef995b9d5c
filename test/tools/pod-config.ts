/** Requests as a kubelet makes them, with what a test changes. */
import { randomBytes } from 'node:crypto';

import type { runtime } from '#gen/cri/v1/api.js';

type SandboxProperties = runtime.v1.PodSandboxConfig.$Properties;
type ContainerProperties = runtime.v1.ContainerConfig.$Properties;

export interface SandboxChoice {
  readonly name?: string;
  readonly logDirectory?: string;
  readonly more?: SandboxProperties;
}

/** A pod of the default kind: own network, a PID namespace for each container. */
export function sandboxConfig(choice: SandboxChoice = {}): SandboxProperties {
  const name = choice.name ?? `pod-${randomBytes(3).toString('hex')}`;
  return {
    metadata: { name, namespace: 'default', uid: randomBytes(8).toString('hex'), attempt: 0 },
    hostname: name,
    logDirectory: choice.logDirectory ?? '',
    labels: { 'io.kubernetes.pod.name': name },
    linux: { securityContext: { namespaceOptions: { network: 0, pid: 1, ipc: 0 } } },
    ...choice.more,
  };
}

/** A container that runs `command`, logging to `<name>.log` below the pod's log directory. */
export function containerConfig(
  name: string,
  image: string,
  command: readonly string[],
  more: ContainerProperties = {},
): ContainerProperties {
  return {
    metadata: { name, attempt: 0 },
    image: { image },
    command: [...command],
    logPath: `${name}.log`,
    linux: { securityContext: { namespaceOptions: { network: 0, pid: 1, ipc: 0 } } },
    ...more,
  };
}

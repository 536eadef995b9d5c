import Long from 'long';

import type { SandboxRecord } from '../model/sandbox.js';
import { isReady } from '../model/sandbox-state.js';
import { v1 } from './api.js';
import { encodeNamespaceOptions } from './namespace-codec.js';

export function sandboxState(record: SandboxRecord): v1.PodSandboxState {
  return isReady(record) ? v1.PodSandboxState.SANDBOX_READY : v1.PodSandboxState.SANDBOX_NOTREADY;
}

/** A pod in a list. Labels and annotations come back as they were sent: the kubelet keeps its state in them. */
export function encodeSandbox(record: SandboxRecord): v1.PodSandbox.$Properties {
  const { metadata, labels, annotations } = record.config;
  return {
    id: record.id,
    metadata,
    state: sandboxState(record),
    createdAt: Long.fromString(record.createdAt),
    labels,
    annotations,
    runtimeHandler: record.runtimeHandler,
  };
}

/**
 * The kubelet tears a pod down whose namespaces do not come back as it asked for them, or whose network has
 * no address while it is ready (cri-behaviour §1.5).
 */
export function encodeSandboxStatus(record: SandboxRecord): v1.PodSandboxStatus.$Properties {
  const [ip, ...others] = isReady(record) ? (record.network?.ips ?? []) : [];
  return {
    ...encodeSandbox(record),
    network: { ip: ip ?? '', additionalIps: others.map((one) => ({ ip: one })) },
    linux: { namespaces: { options: encodeNamespaceOptions(record.config.namespaceOptions) } },
  };
}

import Long from 'long';

import type { ContainerRecord } from '../model/container.js';
import { hasExited } from '../model/container-state.js';
import { v1 } from './api.js';
import { encodeMount } from './mount-codec.js';
import { encodeResources } from './resources-codec.js';
import { encodeSignal } from './security-codec.js';

export function containerState(record: ContainerRecord): v1.ContainerState {
  if (hasExited(record)) return v1.ContainerState.CONTAINER_EXITED;
  return record.phase === 'running'
    ? v1.ContainerState.CONTAINER_RUNNING
    : v1.ContainerState.CONTAINER_CREATED;
}

/** A container in a list. */
export function encodeContainer(record: ContainerRecord): v1.Container.$Properties {
  const { metadata, labels, annotations } = record.config;
  return {
    id: record.id,
    podSandboxId: record.sandboxId,
    metadata,
    image: encodeImageSpec(record),
    imageRef: record.imageRef,
    imageId: record.imageId,
    state: containerState(record),
    createdAt: Long.fromString(record.createdAt),
    labels,
    annotations,
  };
}

/** Exit code, reason and end are told once it has exited, and not before. */
export function encodeContainerStatus(record: ContainerRecord): v1.ContainerStatus.$Properties {
  const { metadata, labels, annotations, mounts, resources } = record.config;
  const exit = hasExited(record) ? record.exit : undefined;
  return {
    id: record.id,
    metadata,
    state: containerState(record),
    createdAt: Long.fromString(record.createdAt),
    startedAt: Long.fromString(record.startedAt),
    finishedAt: Long.fromString(record.finishedAt),
    exitCode: exit?.code ?? 0,
    reason: exit?.reason ?? '',
    message: exit?.message ?? '',
    image: encodeImageSpec(record),
    imageRef: record.imageRef,
    imageId: record.imageId,
    labels,
    annotations,
    mounts: mounts.map(encodeMount),
    logPath: record.logPath,
    resources: { linux: encodeResources(resources) },
    user: {
      linux: {
        uid: Long.fromNumber(record.user.uid),
        gid: Long.fromNumber(record.user.gid),
        supplementalGroups: record.user.supplementalGroups.map((group) => Long.fromNumber(group)),
      },
    },
    stopSignal: encodeSignal(record.stopSignal),
  };
}

function encodeImageSpec(record: ContainerRecord): v1.ImageSpec.$Properties {
  return { image: record.config.image, userSpecifiedImage: record.config.userSpecifiedImage };
}

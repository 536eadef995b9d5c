import type { ContainerMount, MountPropagation } from '../model/container.js';
import { v1 } from './api.js';
import { enumName, invalid, requiredAbsolutePath, requiredText, unsupported } from './checks.js';

const propagations: Readonly<Record<number, MountPropagation>> = {
  [v1.MountPropagation.PROPAGATION_PRIVATE]: 'PRIVATE',
  [v1.MountPropagation.PROPAGATION_HOST_TO_CONTAINER]: 'HOST_TO_CONTAINER',
  [v1.MountPropagation.PROPAGATION_BIDIRECTIONAL]: 'BIDIRECTIONAL',
};

/** A mount as it was asked for; which kinds a pod can have is the pod room's decision. */
export function decodeMount(from: v1.Mount.$Properties): ContainerMount {
  const containerPath = requiredText(from.containerPath, 'config.mounts.container_path');
  const field = `config.mounts[${containerPath}]`;
  const image = from.image?.image ?? '';
  const mount: ContainerMount = {
    // Relative ones exist in the wild (Docker accepted them); they count from the root.
    containerPath,
    hostPath: image === '' ? requiredAbsolutePath(from.hostPath, `${field}.host_path`) : '',
    readonly: from.readonly ?? false,
    selinuxRelabel: from.selinuxRelabel ?? false,
    propagation: enumName(propagations, from.propagation, `${field}.propagation`),
    recursiveReadOnly: from.recursiveReadOnly ?? false,
    image,
    imageSubPath: from.imageSubPath ?? '',
  };
  if (mount.recursiveReadOnly && (!mount.readonly || mount.propagation !== 'PRIVATE'))
    throw invalid(`${field}: recursive_read_only needs readonly and private propagation`);
  if ((from.uidMappings ?? []).length > 0 || (from.gidMappings ?? []).length > 0)
    throw unsupported(`${field}: id mappings of mounts are not supported`);
  if ((from.mountOptions ?? []).length > 0)
    throw unsupported(`${field}: mount options are not supported (the runtime does not announce them)`);
  return mount;
}

export function encodeMount(from: ContainerMount): v1.Mount.$Properties {
  return {
    containerPath: from.containerPath,
    hostPath: from.hostPath,
    readonly: from.readonly,
    selinuxRelabel: from.selinuxRelabel,
    propagation: v1.MountPropagation[`PROPAGATION_${from.propagation}`],
    recursiveReadOnly: from.recursiveReadOnly,
    ...(from.image === '' ? {} : { image: { image: from.image }, imageSubPath: from.imageSubPath }),
  };
}

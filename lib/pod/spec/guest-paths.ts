/** Paths inside the guest that its agent provides (agent.proto, CreateContainerRequest.oci_config). */
const podDirectory = '/run/herkos/pod';

export const guestPaths = {
  hostname: `${podDirectory}/hostname`,
  hosts: `${podDirectory}/hosts`,
  resolvConf: `${podDirectory}/resolv.conf`,
  shm: `${podDirectory}/shm`,
  podPidNamespace: `${podDirectory}/ns/pid`,
  containerPidNamespace: (containerId: string): string => `/run/herkos/containers/${containerId}/ns/pid`,
  cgroup: (containerId: string): string => `/herkos/${containerId}`,
} as const;

import { v1 } from './api.js';
import type { CriParts } from './parts.js';

/** The driver decides in which syntax the kubelet writes `cgroup_parent`. */
export function runtimeConfig(
  _ctx: unknown,
  _request: unknown,
  { node }: CriParts,
): v1.RuntimeConfigResponse.$Properties {
  const cgroupDriver = node.cgroupDriver === 'systemd' ? v1.CgroupDriver.SYSTEMD : v1.CgroupDriver.CGROUPFS;
  return { linux: { cgroupDriver } };
}

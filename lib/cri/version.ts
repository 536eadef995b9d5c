import { criApiVersion, kubeletApiVersion, runtimeName } from '../model/runtime.js';
import type { v1 } from './api.js';
import type { CriParts } from './parts.js';

/** All four must be there; clients refuse an empty one, and the kubelet any other `version`. */
export function version(
  _ctx: unknown,
  _request: unknown,
  { node }: CriParts,
): v1.VersionResponse.$Properties {
  return {
    version: kubeletApiVersion,
    runtimeName,
    runtimeVersion: node.version,
    runtimeApiVersion: criApiVersion,
  };
}

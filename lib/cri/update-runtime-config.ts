import type { v1 } from './api.js';
import type { CriParts } from './parts.js';

/** The node's pod addresses come from the CNI configuration; what the kubelet tells is only noted. */
export function updateRuntimeConfig(
  _ctx: unknown,
  request: v1.UpdateRuntimeConfigRequest,
  { log }: CriParts,
): v1.UpdateRuntimeConfigResponse.$Properties {
  const podCidr = request.runtimeConfig?.networkConfig?.podCidr ?? '';
  if (podCidr !== '') log.info('the kubelet tells the pod address range', { podCidr });
  return {};
}

import type { Context } from '../base/context.js';
import type { v1 } from './api.js';
import { sandboxId } from './ids.js';
import type { CriParts } from './parts.js';
import { decodeResources } from './resources-codec.js';

/** The sums of a pod as they will be: a message that is there replaces the former one. @throws NotFound, FailedPrecondition */
export async function updatePodSandboxResources(
  ctx: Context,
  request: v1.UpdatePodSandboxResourcesRequest,
  { pods }: CriParts,
): Promise<v1.UpdatePodSandboxResourcesResponse.$Properties> {
  const { resources, overhead } = request;
  await pods.updateSandbox(ctx, sandboxId(pods, request.podSandboxId), {
    ...(resources ? { resources: decodeResources(resources, 'resources') } : {}),
    ...(overhead ? { overhead: decodeResources(overhead, 'overhead') } : {}),
  });
  return {};
}

import type { Context } from '../base/context.js';
import type { v1 } from './api.js';
import { required, unsupported } from './checks.js';
import { containerId } from './ids.js';
import type { CriParts } from './parts.js';
import { decodeChange } from './resources-codec.js';

/**
 * When it returns, the new limits hold and ContainerStatus reports them. What is zero or empty stays as it
 * is. @throws NotFound, FailedPrecondition for a container that has ended
 */
export async function updateContainerResources(
  ctx: Context,
  request: v1.UpdateContainerResourcesRequest,
  { pods }: CriParts,
): Promise<v1.UpdateContainerResourcesResponse.$Properties> {
  const id = containerId(pods, request.containerId);
  if (request.windows) throw unsupported('windows: this runtime runs Linux containers only');
  await pods.updateContainer(ctx, id, decodeChange(required(request.linux, 'linux'), 'linux'));
  return {};
}

import type { Context } from '../base/context.js';
import type { v1 } from './api.js';
import { containerIdOrGone } from './ids.js';
import type { CriParts } from './parts.js';

/** Kills a running container first; an unknown id is a success. */
export async function removeContainer(
  ctx: Context,
  request: v1.RemoveContainerRequest,
  { pods }: CriParts,
): Promise<v1.RemoveContainerResponse.$Properties> {
  await pods.removeContainer(ctx, containerIdOrGone(pods, request.containerId));
  return {};
}

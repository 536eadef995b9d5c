import type { Context } from '../base/context.js';
import type { v1 } from './api.js';
import { containerId } from './ids.js';
import type { CriParts } from './parts.js';

export async function startContainer(
  ctx: Context,
  request: v1.StartContainerRequest,
  { pods }: CriParts,
): Promise<v1.StartContainerResponse.$Properties> {
  await pods.startContainer(ctx, containerId(pods, request.containerId));
  return {};
}

import type { Context } from '../base/context.js';
import type { v1 } from './api.js';
import { decodeContainerConfig } from './container-config.js';
import { sandboxId } from './ids.js';
import type { CriParts } from './parts.js';

/** The pod's config that comes along is the one that the pod was made with; it is not needed again. */
export async function createContainer(
  ctx: Context,
  request: v1.CreateContainerRequest,
  { pods }: CriParts,
): Promise<v1.CreateContainerResponse.$Properties> {
  const config = decodeContainerConfig(request.config);
  const record = await pods.createContainer(ctx, sandboxId(pods, request.podSandboxId), config);
  return { containerId: record.id };
}

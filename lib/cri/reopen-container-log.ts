import type { Context } from '../base/context.js';
import type { v1 } from './api.js';
import { containerId } from './ids.js';
import type { CriParts } from './parts.js';

/** After it succeeded, no byte goes to the old file and the new one is there. */
export async function reopenContainerLog(
  ctx: Context,
  request: v1.ReopenContainerLogRequest,
  { pods }: CriParts,
): Promise<v1.ReopenContainerLogResponse.$Properties> {
  await pods.reopenLog(ctx, containerId(pods, request.containerId));
  return {};
}

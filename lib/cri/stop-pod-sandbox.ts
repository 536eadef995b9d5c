import type { Context } from '../base/context.js';
import type { v1 } from './api.js';
import { sandboxIdOrGone } from './ids.js';
import type { CriParts } from './parts.js';

/** Called for every dead pod again and again: an unknown id is a success. */
export async function stopPodSandbox(
  ctx: Context,
  request: v1.StopPodSandboxRequest,
  { pods }: CriParts,
): Promise<v1.StopPodSandboxResponse.$Properties> {
  await pods.stopSandbox(ctx, sandboxIdOrGone(pods, request.podSandboxId));
  return {};
}

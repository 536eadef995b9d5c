import type { Context } from '../base/context.js';
import type { v1 } from './api.js';
import { sandboxIdOrGone } from './ids.js';
import type { CriParts } from './parts.js';

/** Removes a running pod too, with its containers; an unknown id is a success. */
export async function removePodSandbox(
  ctx: Context,
  request: v1.RemovePodSandboxRequest,
  { pods }: CriParts,
): Promise<v1.RemovePodSandboxResponse.$Properties> {
  await pods.removeSandbox(ctx, sandboxIdOrGone(pods, request.podSandboxId));
  return {};
}

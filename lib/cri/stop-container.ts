import type { Context } from '../base/context.js';
import type { v1 } from './api.js';
import { integer } from './checks.js';
import { containerIdOrGone } from './ids.js';
import type { CriParts } from './parts.js';

/** Two weeks: longer ones overflow the timers of this platform, and mean "no limit" anyway. */
export const graceSecondsMax = 14 * 24 * 3600;

/** When it returns, the container's status says that it has exited. An unknown id is a success. */
export async function stopContainer(
  ctx: Context,
  request: v1.StopContainerRequest,
  { pods }: CriParts,
): Promise<v1.StopContainerResponse.$Properties> {
  const graceSeconds = Math.min(integer(request.timeout, 'timeout', 0), graceSecondsMax);
  await pods.stopContainer(ctx, containerIdOrGone(pods, request.containerId), graceSeconds);
  return {};
}

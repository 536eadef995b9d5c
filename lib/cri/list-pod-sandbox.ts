import type { Context } from '../base/context.js';
import type { v1 } from './api.js';
import { filterSandboxes } from './filters.js';
import type { CriParts } from './parts.js';
import { encodeSandbox } from './sandbox-codec.js';

/** Asked every second: answered from memory. */
export function listPodSandbox(
  _ctx: Context,
  request: v1.ListPodSandboxRequest,
  { pods }: CriParts,
): v1.ListPodSandboxResponse.$Properties {
  return { items: filterSandboxes(pods.sandboxes(), request.filter).map(encodeSandbox) };
}

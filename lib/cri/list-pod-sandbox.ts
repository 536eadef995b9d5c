import type { Context } from '../base/context.js';
import type { SandboxRecord } from '../model/sandbox.js';
import { v1 } from './api.js';
import type { EncodedResponse } from './encoded-list.js';
import { ItemEncoder } from './encoded-list.js';
import { filterSandboxes } from './filters.js';
import type { CriParts } from './parts.js';
import { encodeSandbox } from './sandbox-codec.js';

const items = new ItemEncoder<SandboxRecord>((record) =>
  v1.PodSandbox.encode(encodeSandbox(record)).finish(),
);

/** Asked every second: answered from memory. */
export function listPodSandbox(
  _ctx: Context,
  request: v1.ListPodSandboxRequest,
  { pods }: CriParts,
): EncodedResponse {
  return items.response(filterSandboxes(pods.sandboxes(), request.filter));
}

import type { Context } from '../base/context.js';
import type { v1 } from './api.js';
import { encodeContainer } from './container-codec.js';
import { filterContainers } from './filters.js';
import type { CriParts } from './parts.js';

/** Asked every second: answered from memory. */
export function listContainers(
  _ctx: Context,
  request: v1.ListContainersRequest,
  { pods }: CriParts,
): v1.ListContainersResponse.$Properties {
  return { containers: filterContainers(pods.containers(), request.filter).map(encodeContainer) };
}

import type { Context } from '../base/context.js';
import type { ContainerRecord } from '../model/container.js';
import { v1 } from './api.js';
import { encodeContainer } from './container-codec.js';
import type { EncodedResponse } from './encoded-list.js';
import { ItemEncoder } from './encoded-list.js';
import { filterContainers } from './filters.js';
import type { CriParts } from './parts.js';

const items = new ItemEncoder<ContainerRecord>((record) =>
  v1.Container.encode(encodeContainer(record)).finish(),
);

/** Asked every second: answered from memory. */
export function listContainers(
  _ctx: Context,
  request: v1.ListContainersRequest,
  { pods }: CriParts,
): EncodedResponse {
  return items.response(filterContainers(pods.containers(), request.filter));
}

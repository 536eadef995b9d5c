import type { Context } from '../base/context.js';
import type { v1 } from './api.js';
import { encodeImage, requiredReference } from './image-codec.js';
import { verboseInfo } from './info.js';
import type { CriParts } from './parts.js';

/** An image that is not here is an answer without an image, not an error. */
export async function imageStatus(
  _ctx: Context,
  request: v1.ImageStatusRequest,
  { images }: CriParts,
): Promise<v1.ImageStatusResponse.$Properties> {
  const reference = requiredReference(request.image);
  const record = images.find(reference);
  if (record === undefined) return {};
  const info = await verboseInfo(request.verbose, () => ({
    pulledAt: record.pulledAt,
    run: record.run,
    diffIds: record.diffIds,
    devices: record.devices,
  }));
  const spec = { image: reference, annotations: request.image?.annotations ?? {} };
  return { image: { ...encodeImage(record), spec }, info };
}

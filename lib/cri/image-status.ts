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
  const record = images.find(requiredReference(request.image));
  if (record === undefined) return {};
  const info = await verboseInfo(request.verbose, () => ({
    pulledAt: record.pulledAt,
    run: record.run,
    diffIds: record.diffIds,
    devices: record.devices,
  }));
  const image = encodeImage(record);
  const annotations = request.image?.annotations ?? {};
  return { image: { ...image, spec: { ...image.spec, annotations } }, info };
}

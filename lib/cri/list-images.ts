import type { Context } from '../base/context.js';
import type { v1 } from './api.js';
import { encodeImage } from './image-codec.js';
import type { CriParts } from './parts.js';

/** With a filter: the one image that it names, or none. */
export function listImages(
  _ctx: Context,
  request: v1.ListImagesRequest,
  { images }: CriParts,
): v1.ListImagesResponse.$Properties {
  const reference = request.filter?.image?.image ?? '';
  if (reference === '') return { images: images.list().map(encodeImage) };
  const found = images.find(reference);
  return { images: found === undefined ? [] : [encodeImage(found)] };
}

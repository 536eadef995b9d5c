import type { Context } from '../base/context.js';
import type { v1 } from './api.js';
import { requiredReference } from './image-codec.js';
import type { CriParts } from './parts.js';

/** By any of its names, and with all of them; an unknown one is a success. */
export async function removeImage(
  ctx: Context,
  request: v1.RemoveImageRequest,
  { images }: CriParts,
): Promise<v1.RemoveImageResponse.$Properties> {
  await images.remove(ctx, requiredReference(request.image));
  return {};
}

import type { Context } from '../base/context.js';
import type { v1 } from './api.js';
import { decodeCredentials } from './credentials.js';
import { requiredReference } from './image-codec.js';
import type { CriParts } from './parts.js';

/** Has no deadline of its own: it ends when the image is here, or when the client gives up. */
export async function pullImage(
  ctx: Context,
  request: v1.PullImageRequest,
  { images }: CriParts,
): Promise<v1.PullImageResponse.$Properties> {
  const reference = requiredReference(request.image);
  const credentials = decodeCredentials(request.auth, images.parseName(reference).host);
  const record = await images.pull(ctx, reference, credentials);
  return { imageRef: record.id };
}

import type { Context } from '../base/context.js';
import type { admin } from './admin-progress.js';
import { ProgressSender } from './admin-progress.js';
import { requiredText } from './checks.js';
import { decodeCredentials } from './credentials.js';
import type { CriParts } from './parts.js';

export async function adminPullImage(
  ctx: Context,
  request: admin.PullImageRequest,
  { images }: CriParts,
  send: (message: admin.ImageProgress.$Properties) => void,
): Promise<void> {
  const reference = requiredText(request.image, 'image');
  const { username, password } = request;
  const credentials = decodeCredentials({ username, password }, images.parseName(reference).host);
  const progress = new ProgressSender(send);
  progress.done([await images.pull(ctx, reference, credentials, progress.listener)]);
}

import type { Context } from '../base/context.js';
import type { admin } from './admin-progress.js';
import { ProgressSender } from './admin-progress.js';
import { requiredAbsolutePath } from './checks.js';
import type { CriParts } from './parts.js';

export async function adminImportImage(
  ctx: Context,
  request: admin.ImportImageRequest,
  { images }: CriParts,
  send: (message: admin.ImageProgress.$Properties) => void,
): Promise<void> {
  const path = requiredAbsolutePath(request.path, 'path');
  const name = request.name === '' ? undefined : request.name;
  const progress = new ProgressSender(send);
  progress.done(await images.import(ctx, path, name, progress.listener));
}

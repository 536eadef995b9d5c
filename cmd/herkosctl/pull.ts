import { herkos } from '#gen/admin/v1/api.js';
import { admin } from '#gen/admin/v1/services.js';

import { HerkosError } from '../../lib/base/errors.js';
import { formatBytes } from '../../lib/base/units.js';
import type { Credentials } from './option-values.js';
import { environmentCredentials } from './option-values.js';
import { ProgressBar } from './progress.js';
import type { Session } from './session.js';

export interface PullOptions {
  readonly creds?: Credentials;
  readonly quiet?: boolean;
}

type Progress = herkos.admin.v1.ImageProgress;

/** Pulls with progress on standard error. Returns the image's id. */
export async function pullImage(session: Session, image: string, options: PullOptions): Promise<string> {
  const request = { image, ...(options.creds ?? environmentCredentials()) };
  const stream = session.client.stream(session.ctx, admin.pullImage, request);
  const [id] = await watch(session, `pull ${image}`, stream, options.quiet ?? false);
  if (id === undefined) throw new HerkosError('Internal', `the daemon pulled ${image} but names no image`);
  return id;
}

export async function pullCommand(session: Session, image: string, options: PullOptions): Promise<void> {
  const id = await pullImage(session, image, options);
  session.output.result({ id }, () => {
    session.output.line(id);
  });
}

export async function importCommand(
  session: Session,
  path: string,
  options: { readonly name?: string; readonly quiet?: boolean },
): Promise<void> {
  const request = { path, name: options.name ?? '' };
  const stream = session.client.stream(session.ctx, admin.importImage, request);
  const ids = await watch(session, `import ${path}`, stream, options.quiet ?? false);
  session.output.result({ ids }, () => {
    for (const id of ids) session.output.line(id);
  });
}

/** Shows progress until the stream ends; the ids of its last message. */
async function watch(
  session: Session,
  title: string,
  stream: AsyncIterable<Progress>,
  quiet: boolean,
): Promise<readonly string[]> {
  const bar = new ProgressBar(session.output, title);
  let last: Progress | undefined;
  try {
    for await (const progress of stream) {
      last = progress;
      if (!quiet) bar.show(progress);
    }
  } finally {
    bar.end();
  }
  if (last?.phase !== herkos.admin.v1.ImageProgress.Phase.PHASE_DONE)
    throw new HerkosError('Unavailable', `${title}: the daemon ended before the image was complete`);
  if (!quiet && session.output.format === 'table')
    session.output.note(`${title}: done, ${formatBytes(Number(last.bytesTotal))}`);
  return last.imageIds;
}

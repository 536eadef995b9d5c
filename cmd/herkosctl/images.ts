import { formatBytes } from '../../lib/base/units.js';
import { v1 } from '../../lib/cri/api.js';
import { plain } from './messages.js';
import { shownId } from './output.js';
import type { Session } from './session.js';

export async function imagesCommand(session: Session): Promise<void> {
  const { images } = await session.quick(session.rpc.listImages, {});
  session.output.result(
    images.map((image) => plain(v1.Image, v1.Image.create(image))),
    () => {
      session.output.table(['IMAGE', 'ID', 'SIZE'], images.flatMap(rowsOf));
    },
  );
}

/** One row a name; an image that was pulled by digest has no tag. */
function rowsOf(image: v1.Image.$Properties): string[][] {
  const tags = image.repoTags ?? [];
  const names = tags.length > 0 ? tags : (image.repoDigests ?? []);
  const size = formatBytes(Number(image.size ?? 0));
  return (names.length > 0 ? names : ['<none>']).map((name) => [name, shownId(image.id ?? ''), size]);
}

export async function removeImageCommand(session: Session, references: readonly string[]): Promise<void> {
  for (const image of references) {
    await session.slow(session.rpc.removeImage, { image: { image } });
    session.output.result({ removed: image }, () => {
      session.output.line(image);
    });
  }
}

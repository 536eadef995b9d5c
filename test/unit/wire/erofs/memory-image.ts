import type { ErofsNode } from '../../../../lib/wire/erofs/node.js';
import { ErofsReader } from '../../../../lib/wire/erofs/reader.js';
import { CachedSource } from '../../../../lib/wire/erofs/source.js';
import { ErofsWriter } from '../../../../lib/wire/erofs/writer.js';

/** An image in memory. */
export class MemoryImage {
  bytes = Buffer.alloc(0);

  readonly writeAt = (data: Uint8Array, position: number): void => {
    const end = position + data.length;
    if (end > this.bytes.length)
      this.bytes = Buffer.concat([this.bytes, Buffer.alloc(end - this.bytes.length)]);
    this.bytes.set(data, position);
  };

  async reader(): Promise<ErofsReader> {
    return readerOf(this.bytes);
  }
}

export async function readerOf(bytes: Buffer): Promise<ErofsReader> {
  const source = new CachedSource(
    (buffer, position) => Promise.resolve(bytes.copy(buffer, 0, position)),
    0,
    bytes.length,
  );
  return ErofsReader.open(source);
}

/** Writes a tree whose file contents `fill` gives, each node once. */
export function writeImage(
  root: ErofsNode,
  fill: (writer: ErofsWriter) => void = () => undefined,
): MemoryImage {
  const image = new MemoryImage();
  const writer = new ErofsWriter(image.writeAt);
  fill(writer);
  writer.finish(root, Buffer.alloc(16, 7));
  return image;
}

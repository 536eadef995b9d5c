import type { TarEntry } from '../../../../lib/wire/tar/entry.js';
import { TarParser } from '../../../../lib/wire/tar/parser.js';

export interface Collected {
  readonly entry: TarEntry;
  /** The file as a reader sees it, holes as zeros. */
  readonly content: Buffer;
}

/** Parses a whole archive, given in pieces of these sizes (the last size repeats). */
export function collect(archive: Buffer, pieceSizes: readonly number[] = [archive.length]): Collected[] {
  const found: { entry: TarEntry; content: Buffer }[] = [];
  const parser = new TarParser({
    entry: (entry) => found.push({ entry, content: Buffer.alloc(entry.size) }),
    data: (chunk, position) => chunk.copy(found.at(-1)?.content ?? Buffer.alloc(0), position),
    entryEnd: () => undefined,
  });
  let turn = 0;
  for (let at = 0; at < archive.length; turn += 1) {
    const size = Math.max(1, pieceSizes[Math.min(turn, pieceSizes.length - 1)] ?? 1);
    parser.push(Buffer.from(archive.subarray(at, at + size)));
    at += size;
  }
  parser.finish();
  return found;
}

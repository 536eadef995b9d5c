/** A tar file read once for its table of contents; the contents are then read where they lie. */
import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';

import type { Context } from '../../base/context.js';
import { HerkosError } from '../../base/errors.js';
import type { TarEntry, TarHandler } from '../../wire/tar/entry.js';
import { TarParser } from '../../wire/tar/parser.js';
import type { ArchiveFiles } from './files.js';
import { missing, readRange } from './files.js';

/** Entries of an image archive: a few for each layer. */
const entriesMax = 100_000;
const linkHopsMax = 8;
const nameLengthMax = 1024;

interface Place {
  readonly offset: number;
  readonly size: number;
}

export class TarFiles implements ArchiveFiles {
  readonly what: string;
  readonly #handle: FileHandle;
  readonly #places: ReadonlyMap<string, Place>;
  /** Old Docker archives store a layer that comes twice as a link to the first. */
  readonly #links: ReadonlyMap<string, string>;

  private constructor(what: string, handle: FileHandle, contents: Contents) {
    this.what = what;
    this.#handle = handle;
    this.#places = contents.places;
    this.#links = contents.links;
  }

  /** @throws HerkosError `DataLoss` for a broken archive. */
  static async open(ctx: Context, path: string, what: string): Promise<TarFiles> {
    const handle = await open(path, 'r');
    try {
      const contents = new Contents();
      const { size } = await handle.stat();
      for await (const chunk of readRange(ctx, handle, 0, size, what)) contents.push(chunk);
      contents.finish();
      return new TarFiles(what, handle, contents);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  sizeOf(name: string): Promise<number | undefined> {
    return Promise.resolve(this.#find(name)?.size);
  }

  read(ctx: Context, name: string): AsyncIterable<Buffer> {
    const place = this.#find(name);
    if (place === undefined) throw missing(this, name);
    return readRange(ctx, this.#handle, place.offset, place.size, this.what);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  #find(name: string): Place | undefined {
    let current = name;
    for (let hop = 0; hop <= linkHopsMax; hop += 1) {
      const place = this.#places.get(current);
      if (place !== undefined) return place;
      const target = this.#links.get(current);
      if (target === undefined) return undefined;
      current = target;
    }
    return undefined;
  }
}

/** Notes where each regular file's data begins. */
class Contents implements TarHandler {
  readonly places = new Map<string, Place>();
  readonly links = new Map<string, string>();
  readonly #parser = new TarParser(this);
  #chunk: Buffer = Buffer.alloc(0);
  #chunkOffset = 0;
  #name = '';
  #size = 0;
  #begun = true;
  #entries = 0;

  push(chunk: Buffer): void {
    this.#chunk = chunk;
    this.#parser.push(chunk);
    this.#chunkOffset += chunk.length;
  }

  finish(): void {
    this.#parser.finish();
    if (this.#entries === 0) throw new HerkosError('DataLoss', 'the archive is empty');
  }

  entry(entry: TarEntry): void {
    this.#entries += 1;
    if (this.#entries > entriesMax)
      throw new HerkosError('ResourceExhausted', `the archive has more than ${String(entriesMax)} entries`);
    const name = plainName(entry.path);
    this.#begun = true;
    if (name === undefined || this.places.has(name) || this.links.has(name)) return;
    if (entry.type === 'symlink' || entry.type === 'link') {
      const from = entry.type === 'symlink' ? name.split('/').slice(0, -1).join('/') : '';
      const target = plainName(from === '' ? entry.linkPath : `${from}/${entry.linkPath}`);
      if (target !== undefined) this.links.set(name, target);
      return;
    }
    if (entry.type !== 'file') return;
    if (entry.segments !== undefined)
      throw new HerkosError('FailedPrecondition', 'the archive has a sparse file');
    if (entry.size === 0) this.places.set(name, { offset: 0, size: 0 });
    else {
      this.#name = name;
      this.#size = entry.size;
      this.#begun = false;
    }
  }

  /** Data is handed over as a part of the chunk that was pushed: where it lies there tells where it lies in the file. */
  data(part: Buffer): void {
    if (this.#begun) return;
    this.#begun = true;
    const offset = this.#chunkOffset + (part.byteOffset - this.#chunk.byteOffset);
    this.places.set(this.#name, { offset, size: this.#size });
  }

  entryEnd(): void {
    this.#begun = true;
  }
}

/** `./a//b/../c` as `a/c`; undefined for what leads out of the archive. */
function plainName(path: string): string | undefined {
  if (path.length > nameLengthMax) return undefined;
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue;
    if (part !== '..') parts.push(part);
    else if (parts.pop() === undefined) return undefined;
  }
  return parts.join('/');
}

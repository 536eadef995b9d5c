/** One file of an image, read on the host: what an overlay of its layers would show, without mounting anything. */
import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';

import { throwIfDone } from '../../base/context.js';
import type { Context } from '../../base/context.js';
import { HerkosError } from '../../base/errors.js';
import { fileTypes } from '../../wire/erofs/format.js';
import { ErofsReader } from '../../wire/erofs/reader.js';
import type { ErofsInode } from '../../wire/erofs/reader.js';
import { openHandle } from './device-source.js';
import type { LayerLocation, ReadFileInLayers } from './types.js';

/** Symbolic links followed in one look-up, as in Linux. */
const hopsMax = 40;
/** Components visited in one look-up, those of links included. */
const stepsMax = 4096;

/** One layer's part of what overlayfs merges. */
interface Part {
  readonly reader: ErofsReader;
  readonly inode: ErofsInode;
}

/** A file, or a directory merged of several layers (highest first). */
type Found =
  | { readonly kind: 'directory'; readonly parts: readonly Part[] }
  | { readonly kind: 'other'; readonly part: Part };

/**
 * See `ReadFileInLayers` in types.ts. Reads on the thread pool; nothing is kept open afterwards.
 * @throws HerkosError `ResourceExhausted` when the file is larger than `bytesMax`, `DataLoss` for a broken device file.
 */
export const readFileInLayers: ReadFileInLayers = async (ctx, layers, path, bytesMax) => {
  const handles = new Map<string, FileHandle>();
  try {
    const roots = await openRoots(ctx, layers, handles);
    const found = await resolve(ctx, roots, Buffer.from(path, 'utf8').toString('latin1'));
    if (found?.kind !== 'other') return undefined;
    const { reader, inode } = found.part;
    if ((inode.mode & fileTypes.mask) !== fileTypes.regular) return undefined;
    if (inode.size > bytesMax)
      throw new HerkosError(
        'ResourceExhausted',
        `${path} in the image has ${String(inode.size)} bytes, more than the ${String(bytesMax)} that are read`,
      );
    // A copy: what the reader gives may be part of its cache.
    return Buffer.from(await reader.read(inode, 0, inode.size));
  } finally {
    for (const handle of handles.values()) await handle.close();
  }
};

/** The merged root: highest layer first. */
async function openRoots(
  ctx: Context,
  layers: readonly LayerLocation[],
  handles: Map<string, FileHandle>,
): Promise<readonly Part[]> {
  const readers = new Map<string, ErofsReader>();
  const parts: Part[] = [];
  for (const layer of layers.toReversed()) {
    throwIfDone(ctx);
    let reader = readers.get(layer.path);
    if (reader === undefined) {
      const handle = await open(layer.path, 'r');
      handles.set(layer.path, handle);
      reader = await ErofsReader.open(await openHandle(handle));
      readers.set(layer.path, reader);
    }
    let inode = await reader.inode(reader.rootNid);
    if (layer.subdir !== '') {
      const below = await reader.lookup(inode, layer.subdir);
      if (below === undefined)
        throw new HerkosError('DataLoss', `the device file ${layer.path} has no layer ${layer.subdir}`);
      inode = below;
    }
    parts.push({ reader, inode });
    if (await isOpaque(reader, inode)) break;
  }
  return parts;
}

async function resolve(ctx: Context, roots: readonly Part[], path: string): Promise<Found | undefined> {
  const root: Found = { kind: 'directory', parts: roots };
  const waiting = componentsOf(path);
  const stack: Found[] = [root];
  let hops = 0;
  let steps = 0;
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    throwIfDone(ctx);
    steps += 1;
    if (steps > stepsMax) return undefined;
    if (name === '..') {
      // As for a process whose root is the image: above the root is the root.
      if (stack.length > 1) stack.pop();
      continue;
    }
    const here = stack.at(-1);
    if (here?.kind !== 'directory') return undefined;
    const found = await lookup(here.parts, name);
    if (found === undefined) return undefined;
    if (found.kind === 'other' && isType(found.part.inode, fileTypes.symlink)) {
      hops += 1;
      if (hops > hopsMax) return undefined;
      const target = await found.part.reader.target(found.part.inode);
      if (target.startsWith('/')) stack.length = 1;
      waiting.push(...componentsOf(target));
    } else stack.push(found);
  }
  return stack.at(-1);
}

/** In reverse, to be popped. */
function componentsOf(path: string): string[] {
  return path
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .reverse();
}

/** overlayfs: the highest layer that has the name decides; directories are merged down to an opaque one. */
async function lookup(directories: readonly Part[], name: string): Promise<Found | undefined> {
  const parts: Part[] = [];
  for (const { reader, inode: directory } of directories) {
    const inode = await reader.lookup(directory, name);
    if (inode === undefined) continue;
    if (!isType(inode, fileTypes.directory)) {
      const isWhiteout = isType(inode, fileTypes.char) && inode.device === 0;
      if (parts.length === 0 && !isWhiteout) return { kind: 'other', part: { reader, inode } };
      break;
    }
    parts.push({ reader, inode });
    if (await isOpaque(reader, inode)) break;
  }
  return parts.length === 0 ? undefined : { kind: 'directory', parts };
}

async function isOpaque(reader: ErofsReader, inode: ErofsInode): Promise<boolean> {
  const attributes = await reader.xattrs(inode);
  return attributes.some(
    ({ name, value }) => name === 'trusted.overlay.opaque' && value.toString('latin1') === 'y',
  );
}

function isType(inode: ErofsInode, type: number): boolean {
  return (inode.mode & fileTypes.mask) === type;
}

/** The files that a dynamically linked program needs, found as the dynamic loader would find them. */
import { readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';

import { HerkosError, isErrno } from '../lib/base/errors.js';
import { loadNeeds } from './elf.js';

/** Where the loader of Debian's amd64 looks, in order. */
const libraryDirectories = ['/lib/x86_64-linux-gnu', '/usr/lib/x86_64-linux-gnu', '/lib64', '/usr/lib64'];

const linksMax = 40;

export interface LoadedFile {
  /** The path by which the loader opens it. */
  readonly path: string;
  readonly data: Buffer;
}

/**
 * `program` (a path inside the unpacked packages at `root`), its interpreter and all libraries that they
 * need, each once.
 * @throws NotFound naming the library that no package brought
 */
export async function programClosure(root: string, program: string): Promise<LoadedFile[]> {
  const found = new Map<string, LoadedFile>();
  const visit = async (path: string): Promise<void> => {
    if (found.has(path)) return;
    const data = await readInside(root, path);
    if (data === undefined) throw new HerkosError('NotFound', `no package brought ${path}`);
    found.set(path, { path, data });
    const { interpreter, libraries } = loadNeeds(data, path);
    if (interpreter !== undefined) await visit(interpreter);
    for (const library of libraries) await visit(await findLibrary(root, library, path));
  };
  await visit(program);
  return [...found.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

async function findLibrary(root: string, name: string, neededBy: string): Promise<string> {
  for (const directory of libraryDirectories) {
    const path = `${directory}/${name}`;
    if ((await readInside(root, path)) !== undefined) return path;
  }
  throw new HerkosError('NotFound', `no package brought the library ${name} that ${neededBy} needs`);
}

async function readInside(root: string, path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(join(root, await resolveInside(root, path)));
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR')) return undefined;
    throw error;
  }
}

/** The path without links, all of them read as seen from `root`: packages have absolute ones, such as the loader's. */
async function resolveInside(root: string, path: string): Promise<string> {
  const open = path.split('/').filter(Boolean);
  let resolved: string[] = [];
  let links = 0;
  for (let name = open.shift(); name !== undefined; name = open.shift()) {
    if (name === '.') continue;
    if (name === '..') {
      resolved.pop();
      continue;
    }
    resolved.push(name);
    const target = await readLink(join(root, ...resolved));
    if (target === undefined) continue;
    links += 1;
    if (links > linksMax) throw new HerkosError('InvalidArgument', `${path} is a circle of links`);
    resolved = target.startsWith('/') ? [] : resolved.slice(0, -1);
    open.unshift(...target.split('/').filter(Boolean));
  }
  return `/${resolved.join('/')}`;
}

async function readLink(path: string): Promise<string | undefined> {
  try {
    return await readlink(path);
  } catch (error) {
    if (isErrno(error, 'EINVAL')) return undefined;
    throw error;
  }
}

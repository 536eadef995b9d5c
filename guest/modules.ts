/**
 * Kernel modules: which files a set of them needs, in which order they load, and what of each file the
 * guest can do without.
 */
import { readFile, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';

import { HerkosError } from '../lib/base/errors.js';
import { sectionHeaderBytes, sectionType, sections } from './elf.js';

const signatureMarker = '~Module signature appended~\n';

/**
 * Not needed to run: type descriptions for tracing, which the kernel would check at every load, and the
 * compiler's remarks.
 */
const droppedSections = new Set(['.BTF', '.comment', '.note.GNU-stack']);

/** Where a kernel package keeps its modules, by name with `_` for `-`. */
export interface ModuleTree {
  readonly files: ReadonlyMap<string, string>;
  readonly builtIn: ReadonlySet<string>;
}

export interface ModuleInfo {
  readonly depends: readonly string[];
  /** Names or aliases to load before, when they exist. */
  readonly softPre: readonly string[];
  readonly aliases: readonly string[];
}

/** Finds the modules below `directory` (`/lib/modules/<release>`). */
export async function openModuleTree(directory: string): Promise<ModuleTree> {
  const files = new Map<string, string>();
  const entries = await readdir(join(directory, 'kernel'), { recursive: true });
  for (const path of entries.sort())
    if (path.endsWith('.ko')) files.set(moduleName(path), join(directory, 'kernel', path));
  if (files.size === 0)
    throw new HerkosError('FailedPrecondition', `there are no uncompressed modules below ${directory}`);
  const builtIn = (await readFile(join(directory, 'modules.builtin'), 'utf8')).split('\n').filter(Boolean);
  return { files, builtIn: new Set(builtIn.map(moduleName)) };
}

/** `kernel/fs/9p/9p-extra.ko` → `9p_extra`: the kernel makes no difference between the two characters. */
export function moduleName(path: string): string {
  return basename(path, '.ko').replaceAll('-', '_');
}

/** `key=value` strings of the module's .modinfo section. */
export function moduleInfo(file: Buffer, what: string): ModuleInfo {
  const section = sections(file, what).find(({ name }) => name === '.modinfo');
  if (section === undefined) throw new HerkosError('InvalidArgument', `${what} is no kernel module`);
  const pairs = file.toString('latin1', section.offset, section.offset + section.size).split('\0');
  const values = (key: string): string[] =>
    pairs.filter((pair) => pair.startsWith(`${key}=`)).map((pair) => pair.slice(key.length + 1));
  return {
    depends: values('depends').flatMap((list) => list.split(',').filter(Boolean).map(moduleName)),
    softPre: values('softdep').flatMap((text) => softPre(text)),
    aliases: values('alias'),
  };
}

/** `pre: a b post: c` → a, b */
function softPre(text: string): string[] {
  const names: string[] = [];
  let pre = false;
  for (const word of text.split(/\s+/).filter(Boolean)) {
    if (word.endsWith(':')) pre = word === 'pre:';
    else if (pre) names.push(word);
  }
  return names;
}

/**
 * The files to load, in order, so that `wanted` work: each after all it depends on; built-in ones are left
 * out. `loaded` are there already. Soft dependencies are the caller's choice: name them before.
 * @throws NotFound when the kernel has no such module
 */
export async function loadOrder(
  tree: ModuleTree,
  wanted: readonly string[],
  loaded: ReadonlySet<string> = new Set(),
): Promise<{ readonly name: string; readonly path: string }[]> {
  const order = new Map<string, string>();
  const visit = async (name: string, chain: readonly string[]): Promise<void> => {
    if (order.has(name) || loaded.has(name) || tree.builtIn.has(name)) return;
    const path = tree.files.get(name);
    if (path === undefined || chain.includes(name)) {
      const by = chain.length === 0 ? '' : ` (needed by ${chain.join(' → ')})`;
      throw new HerkosError('NotFound', `the kernel has no module ${name}${by}, or it needs itself`);
    }
    for (const dependency of moduleInfo(await readFile(path), path).depends)
      await visit(dependency, [...chain, name]);
    order.set(name, path);
  };
  for (const name of wanted) await visit(moduleName(name), []);
  return [...order].map(([name, path]) => ({ name, path }));
}

/**
 * The module without its signature and without the sections nobody needs. Section numbers stay, because
 * symbols and relocations name them. A kernel that enforced signatures would refuse such a module; the
 * guest's kernel does not (CONFIG_MODULE_SIG_FORCE is off) and only says once that it is tainted.
 */
export function trimModule(file: Buffer, what: string): Buffer {
  const unsigned = withoutSignature(file);
  const all = sections(unsigned, what);
  const body: Buffer[] = [unsigned.subarray(0, 64)];
  const headers = Buffer.alloc(all.length * sectionHeaderBytes);
  const table = Number(unsigned.readBigUInt64LE(40));
  let end = 64;
  const append = (bytes: Buffer, align: number): number => {
    const start = Math.ceil(end / align) * align;
    body.push(Buffer.alloc(start - end), bytes);
    end = start + bytes.length;
    return start;
  };
  all.forEach((section, index) => {
    // Kept zero: the empty section, and what is dropped becomes one.
    if (section.type === sectionType.null || droppedSections.has(section.name)) return;
    const at = index * sectionHeaderBytes;
    unsigned.copy(headers, at, table + at, table + at + sectionHeaderBytes);
    const bytes =
      section.type === sectionType.noBits
        ? Buffer.alloc(0)
        : unsigned.subarray(section.offset, section.offset + section.size);
    headers.writeBigUInt64LE(BigInt(append(bytes, section.align)), at + 24);
  });
  const headersAt = append(headers, 8);
  const trimmed = Buffer.concat(body);
  trimmed.writeBigUInt64LE(BigInt(headersAt), 40);
  return trimmed;
}

/** `struct module_signature` (include/linux/module_signature.h): its last word is the signature's length, big-endian. */
function withoutSignature(file: Buffer): Buffer {
  const markerAt = file.length - signatureMarker.length;
  if (markerAt < 12 || file.toString('latin1', markerAt) !== signatureMarker) return file;
  const signatureBytes = file.readUInt32BE(markerAt - 4);
  return file.subarray(0, markerAt - 12 - signatureBytes);
}

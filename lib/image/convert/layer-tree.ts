/**
 * The tree that a layer's archive describes, with the rules of the OCI image-spec (layer.md): a later
 * entry of a name wins, missing parents appear, `.wh.` names become what overlayfs understands.
 *
 * All of it happens in memory: no name of the archive is ever used as a path on the host.
 */
import { HerkosError } from '../../base/errors.js';
import { defaultDirectory } from '../../wire/erofs/node.js';
import type { ErofsNode } from '../../wire/erofs/node.js';
import { componentBytesMax, showName } from '../../wire/tar/entry.js';

/** Symbolic links followed while one path is looked up, as in Linux. */
const hopsMax = 40;
/** Components visited while one path is looked up, those of links included. */
const stepsMax = 4096;

/** An archive that names what it may not. */
export function refuse(name: string, why: string): HerkosError {
  return new HerkosError('InvalidArgument', `the layer's entry ${showName(name)} ${why}`, {
    reason: 'LAYER_BAD_ENTRY',
  });
}

/** Components of an entry's name: no empty ones, no `.`; `..` and too long ones are errors. */
export function componentsOf(name: string, absolute: 'refuse' | 'strip'): string[] {
  // A lone slash is the root itself, which several tools write.
  if (absolute === 'refuse' && name.startsWith('/') && /[^/]/.test(name))
    throw refuse(name, 'is an absolute name');
  const components = name.split('/').filter((part) => part !== '' && part !== '.');
  for (const part of components) {
    if (part === '..') throw refuse(name, "has a '..' component");
    if (part.length > componentBytesMax)
      throw refuse(name, `has a component of more than ${String(componentBytesMax)} bytes`);
  }
  return components;
}

/** A name that shares no memory with the longer string it was cut from, which would stay in memory with it. */
function ownName(name: string): string {
  return Buffer.from(name, 'latin1').toString('latin1');
}

/** Called for each directory that comes to be without an entry of its own. */
export type OnImplied = (name: string) => void;

export class LayerTree {
  readonly root: ErofsNode = defaultDirectory();
  readonly #opaque = new Set<ErofsNode>();
  readonly #onImplied: OnImplied;

  constructor(onImplied: OnImplied) {
    this.#onImplied = onImplied;
  }

  /** Directories that hide what lower layers have of them. */
  get opaque(): ReadonlySet<ErofsNode> {
    return this.#opaque;
  }

  markOpaque(directory: ErofsNode): void {
    this.#opaque.add(directory);
  }

  /**
   * The directory that `components` lead to. Symbolic links of this layer are followed, as an
   * unpacking runtime would inside the image's root; what is missing is made.
   */
  directory(components: readonly string[], entryName: string): ErofsNode {
    return this.#walk(components, entryName, true) ?? this.root;
  }

  /** Where a name is: its directory (links followed) and itself (not followed); undefined when missing. */
  find(components: readonly string[], entryName: string): ErofsNode | undefined {
    const last = components.at(-1);
    if (last === undefined) return this.root;
    return this.#walk(components.slice(0, -1), entryName, false)?.children?.get(last);
  }

  #walk(components: readonly string[], entryName: string, create: boolean): ErofsNode | undefined {
    const waiting = components.toReversed();
    const stack = [this.root];
    let hops = 0;
    let steps = 0;
    for (let part = waiting.pop(); part !== undefined; part = waiting.pop()) {
      steps += 1;
      if (steps > stepsMax) throw refuse(entryName, 'follows links that are too long');
      if (part === '..') {
        if (stack.length === 1) throw refuse(entryName, 'follows a link out of the image');
        stack.pop();
        continue;
      }
      const here = stack.at(-1) ?? this.root;
      const child = here.children?.get(part);
      if (child?.target !== undefined) {
        hops += 1;
        if (hops > hopsMax) throw refuse(entryName, 'follows a cycle of links');
        if (child.target.startsWith('/')) stack.length = 1;
        const parts = child.target.split('/').filter((each) => each !== '' && each !== '.');
        waiting.push(...parts.reverse());
        continue;
      }
      const next = child?.isDirectory === true ? child : this.#enter(here, part, child, entryName, create);
      if (next === undefined) return undefined;
      stack.push(next);
    }
    return stack.at(-1);
  }

  /** Makes the directory that a path goes through, or says why it cannot. */
  #enter(
    parent: ErofsNode,
    name: string,
    existing: ErofsNode | undefined,
    entryName: string,
    create: boolean,
  ): ErofsNode | undefined {
    if (!create) return undefined;
    if (name.length > componentBytesMax)
      throw refuse(entryName, `has a component of more than ${String(componentBytesMax)} bytes`);
    if (existing !== undefined && !isWhiteout(existing))
      throw refuse(entryName, 'is below something that is not a directory');
    this.#onImplied(name);
    const made = defaultDirectory();
    // The layer deletes the lower one and brings a new one: nothing of the lower may shine through.
    if (existing !== undefined) this.markOpaque(made);
    parent.children?.set(ownName(name), made);
    return made;
  }

  /** Puts a node in its place; a directory keeps what is in it when its own entry comes (again). */
  put(parent: ErofsNode, name: string, node: ErofsNode): void {
    const existing = parent.children?.get(name);
    if (existing !== undefined && node.isDirectory) {
      if (existing.isDirectory) {
        copyAttributes(node, existing);
        return;
      }
      if (isWhiteout(existing)) this.markOpaque(node);
    }
    parent.children?.set(ownName(name), node);
  }

  /** Hides `name` of the lower layers; what this layer brings itself stays (image-spec: only lower layers are affected). */
  whiteout(parent: ErofsNode, name: string, node: ErofsNode): void {
    const existing = parent.children?.get(name);
    if (existing === undefined) parent.children?.set(ownName(name), node);
    else if (existing.isDirectory) this.markOpaque(existing);
  }
}

function copyAttributes(from: ErofsNode, to: ErofsNode): void {
  to.mode = from.mode;
  to.uid = from.uid;
  to.gid = from.gid;
  to.mtimeSec = from.mtimeSec;
  to.mtimeNsec = from.mtimeNsec;
  to.xattrs = from.xattrs;
}

/** overlayfs: a character device 0/0 hides the name below it. */
export function isWhiteout(node: ErofsNode): boolean {
  return (node.mode & 0o170000) === 0o020000 && node.device === 0;
}

/** What goes into an image of the guest: a list of entries, independent of how the image stores it. */
import { HerkosError } from '../lib/base/errors.js';

export type TreeEntry =
  | { readonly kind: 'directory'; readonly path: string; readonly mode: number }
  | { readonly kind: 'file'; readonly path: string; readonly mode: number; readonly data: Buffer }
  | { readonly kind: 'link'; readonly path: string; readonly target: string };

/** Paths are absolute. Everything belongs to root and is as old as the epoch, so that equal trees are equal bytes. */
export class Tree {
  readonly #entries = new Map<string, TreeEntry>();

  directory(path: string, mode = 0o755): this {
    return this.#add({ kind: 'directory', path, mode });
  }

  file(path: string, data: Buffer | string, mode = 0o644): this {
    return this.#add({ kind: 'file', path, mode, data: Buffer.from(data) });
  }

  link(path: string, target: string): this {
    return this.#add({ kind: 'link', path, target });
  }

  has(path: string): boolean {
    return this.#entries.has(path);
  }

  /** Sorted by path in byte order, so that a directory comes before what is in it. */
  entries(): TreeEntry[] {
    return [...this.#entries.values()].sort((a, b) =>
      Buffer.compare(Buffer.from(a.path), Buffer.from(b.path)),
    );
  }

  #add(entry: TreeEntry): this {
    const segments = entry.path.split('/').slice(1);
    if (!entry.path.startsWith('/') || segments.some((name) => name === '' || name === '.' || name === '..'))
      throw new HerkosError('InvalidArgument', `'${entry.path}' is not a plain absolute path`);
    const known = this.#entries.get(entry.path);
    if (known !== undefined && known.kind !== 'directory')
      throw new HerkosError('AlreadyExists', `${entry.path} is in the tree already`);
    for (let depth = 1; depth < segments.length; depth += 1) {
      const parent = `/${segments.slice(0, depth).join('/')}`;
      const above = this.#entries.get(parent);
      if (above === undefined) this.#entries.set(parent, { kind: 'directory', path: parent, mode: 0o755 });
      else if (above.kind !== 'directory')
        throw new HerkosError('InvalidArgument', `${entry.path} lies below ${parent}, which is no directory`);
    }
    this.#entries.set(entry.path, entry);
    return this;
  }
}

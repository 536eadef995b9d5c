import { readdirSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';

/** Where package.json is; tests run from dist/test/arch. */
export const projectRoot = resolve(import.meta.dirname, '../../..');

/** Built or foreign: nobody wrote these files here. */
const skipped = new Set(['.git', 'node_modules', 'dist', 'gen', 'build', 'coverage', 'target', 'out']);

/** Every file of the project that a person wrote, relative to its root, in order. */
export function projectFiles(root = projectRoot): string[] {
  const walk = (directory: string): string[] =>
    readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
      if (skipped.has(entry.name)) return [];
      const path = join(directory, entry.name);
      if (entry.isDirectory()) return walk(path);
      return entry.isFile() ? [relative(root, path)] : [];
    });
  return walk(root).sort();
}

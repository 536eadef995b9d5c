// Removes from dist/ what was compiled from a source that is gone: a test of it would be run for ever.
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';

const root = resolve(process.argv[2] ?? join(import.meta.dirname, '..'));

for (const path of readdirSync(join(root, 'dist'), { recursive: true })) {
  const [, source] = /^(.*)\.(?:js|js\.map|d\.ts)$/.exec(path) ?? [];
  if (source !== undefined && !existsSync(join(root, `${source}.ts`))) rmSync(join(root, 'dist', path));
}

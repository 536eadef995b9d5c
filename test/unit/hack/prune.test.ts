import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

import { expect } from 'chai';

const prune = resolve(import.meta.dirname, '../../../../hack/prune.mjs');

describe('what was compiled', () => {
  it('goes with its source, and nothing else does', async () => {
    const root = await mkdtemp(join(tmpdir(), 'herkos-prune-'));
    try {
      await mkdir(join(root, 'dist/lib'), { recursive: true });
      await mkdir(join(root, 'lib'));
      const files = ['lib/here.ts', 'dist/lib/here.js', 'dist/lib/here.js.map', 'dist/other.txt'];
      const gone = ['dist/lib/gone.test.js', 'dist/lib/gone.test.js.map'];
      for (const file of [...files, ...gone]) await writeFile(join(root, file), '');
      execFileSync(process.execPath, [prune, root]);
      expect([...files, ...gone].filter((file) => existsSync(join(root, file)))).to.deep.equal(files);
    } finally {
      await rm(root, { recursive: true });
    }
  });
});

import { mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { writeFileAtomic } from '../../../lib/base/atomic-file.js';
import { formatBytes, parseBytes, roundUp } from '../../../lib/base/units.js';
import { rejection } from '../../tools/rejection.js';

describe('base/atomic-file', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'herkos-base-'));
  });
  afterEach(async () => rm(directory, { recursive: true, force: true }));

  it('replaces the content with the asked mode and leaves nothing else', async () => {
    const path = join(directory, 'record.json');
    await writeFile(path, 'old');
    await writeFileAtomic(path, 'new', 0o640);
    expect(await readFile(path, 'utf8')).to.equal('new');
    expect((await stat(path)).mode & 0o777).to.equal(0o640);
    expect(await readdir(directory)).to.deep.equal(['record.json']);
  });

  it('leaves no temporary file when it cannot finish', async () => {
    const path = join(directory, 'taken');
    const { mkdir } = await import('node:fs/promises');
    await mkdir(join(path, 'child'), { recursive: true });
    await rejection(writeFileAtomic(path, 'x'));
    expect(await readdir(directory)).to.deep.equal(['taken']);
  });
});

describe('base/units', () => {
  it('reads sizes as operators write them', () => {
    expect(['0', '4096', '512MiB', '10Gi', '1.5G', '2 kib'].map(parseBytes)).to.deep.equal([
      0, 4096, 536870912, 10737418240, 1610612736, 2048,
    ]);
  });

  it('refuses what is not a size', () => {
    for (const text of ['', 'many', '-1', '5 parsecs', '1e9', 'MiB'])
      expect(() => parseBytes(text), text).to.throw('is not a size');
  });

  it('refuses what a number cannot hold', () => {
    expect(parseBytes('8191TiB')).to.equal(8191 * 1024 ** 4);
    for (const text of ['8192TiB', '9007199254740992', '9'.repeat(400)])
      expect(() => parseBytes(text), text).to.throw('is too large; write less than 8192TiB');
  });

  it('formats for people and rounds up', () => {
    expect([formatBytes(0), formatBytes(1023), formatBytes(1536)]).to.deep.equal([
      '0 B',
      '1023 B',
      '1.5 KiB',
    ]);
    expect([roundUp(0, 4), roundUp(1, 4), roundUp(8, 4)]).to.deep.equal([0, 4, 8]);
  });
});

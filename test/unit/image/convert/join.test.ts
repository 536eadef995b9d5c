import { stat } from 'node:fs/promises';
import { join } from 'node:path';

import { expect } from 'chai';

import { background } from '../../../../lib/base/context.js';
import { MIB } from '../../../../lib/base/units.js';
import { WorkerLayerConverter } from '../../../../lib/image/convert/converter.js';
import { archive, entry, header, padded, pax } from '../../wire/tar/tar-builder.js';
import { inScratch, pieces } from './scratch.js';
import { tableOf } from './tree.js';

/** A file of `size` bytes with one letter every `step` bytes. */
function sparseFile(name: string, size: number, step: number): Buffer {
  const map: number[] = [];
  for (let at = 0; at < size; at += step) map.push(at, 1);
  const count = map.length / 2;
  const records = [
    ['GNU.sparse.map', map.join(',')],
    ['GNU.sparse.numblocks', String(count)],
    ['GNU.sparse.size', String(size)],
  ] as const;
  return Buffer.concat([pax(records), header({ name, size: count }), padded(Buffer.alloc(count, 'x'))]);
}

describe('joining device files', () => {
  let converter: WorkerLayerConverter;
  before(() => {
    converter = new WorkerLayerConverter({ threadsMax: 1 });
  });
  after(async () => {
    await converter.close();
  });

  const convert = async (directory: string, name: string, tar: Buffer): Promise<string> => {
    const destinationPath = join(directory, name);
    await converter.convert(background(), {
      source: pieces(tar),
      compression: 'none',
      expectedDiffId: undefined,
      destinationPath,
    });
    return destinationPath;
  };

  const diskMib = async (path: string): Promise<number> => ((await stat(path)).blocks * 512) / MIB;

  it('keeps the holes in the chunks of a sparse file', async () => {
    await inScratch(async (directory) => {
      // Chunks of 1 MiB with one letter each.
      const file = await convert(
        directory,
        'holes',
        archive(sparseFile('big', 16_384 * MIB, 256 * MIB), sparseFile('small', 3 * MIB, 100_000)),
      );
      const other = await convert(directory, 'other', archive(entry({ name: 'a' }, 'one')));
      const joined = join(directory, 'joined');
      const { deviceBytes } = await converter.join(background(), {
        files: [file, other],
        destinationPath: joined,
      });
      expect(deviceBytes).greaterThan(64 * MIB);
      expect(await diskMib(joined)).lessThan(8);
    });
  });

  it('keeps what is between the holes', async () => {
    await inScratch(async (directory) => {
      const tar = archive(sparseFile('small', 3 * MIB, 100_000), sparseFile('last', 70_000, 69_999));
      const file = await convert(directory, 'holes', tar);
      const joined = join(directory, 'joined');
      await converter.join(background(), { files: [file, file], destinationPath: joined });
      const [before, after] = [await tableOf(file), await tableOf(joined)];
      for (const name of ['small', 'last']) {
        expect(before[name]?.content.includes('x')).equal(true);
        expect(after[`1/${name}`]?.content === before[name]?.content, name).equal(true);
      }
    });
  });
});

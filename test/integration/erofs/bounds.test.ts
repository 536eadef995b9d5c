import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { execPath } from 'node:process';
import { fileURLToPath } from 'node:url';

import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { WorkerLayerConverter } from '../../../lib/image/convert/converter.js';
import { archive, entry } from '../../unit/wire/tar/tar-builder.js';
import { Bench, run } from './host-mount.js';

const program = fileURLToPath(new URL('./convert-many.js', import.meta.url));

interface Measured {
  readonly entries: number;
  readonly deviceBytes: number;
  readonly beforeKib: number;
  readonly peakKib: number;
}

function convertMany(destination: string, files: number, contentBytes: number): Measured {
  const printed = run(execPath, program, destination, String(files), String(contentBytes)).toString();
  return JSON.parse(printed) as Measured;
}

describe('bounds of a conversion', function () {
  this.timeout(180_000);

  it('converts 100,000 files in bounded memory, and all of them are there', async () => {
    await Bench.run(async (bench) => {
      const measured = convertMany(bench.path('device'), 100_000, 100);
      expect(measured.entries).equal(100_000 + 2 + 2 * 2000);
      expect(measured.peakKib).lessThan(150 * 1024);
      bench.check(bench.path('device'));
      const mounted = await bench.mountDevice(bench.path('device'), 'mnt');
      const count = run('sh', '-c', `find ${mounted} -type f -size 100c | wc -l`).toString().trim();
      expect(count).equal('100000');
      expect(statSync(join(mounted, 'usr/lib/package-1999/lib/some-module-file-99999.js')).mtimeMs).equal(
        1_700_099_999_000,
      );
    });
  });

  it('needs no more memory for a large layer than for a small one', async () => {
    await Bench.run(async (bench) => {
      await Promise.resolve();
      const small = convertMany(bench.path('small'), 20, 1024 * 1024);
      const large = convertMany(bench.path('large'), 400, 1024 * 1024);
      expect(large.deviceBytes).greaterThan(15 * small.deviceBytes);
      // The source's own garbage is in both; what matters is that 380 MiB more do not show.
      expect(large.peakKib - small.peakKib).lessThan(64 * 1024);
    });
  });

  it('says so when the disk is full, and leaves nothing behind', async () => {
    await Bench.run(async (bench) => {
      const disk = await bench.mount('disk', 'tmpfs', 'size=4m', 'tmpfs');
      const converter = new WorkerLayerConverter({ threadsMax: 1 });
      async function* source(): AsyncGenerator<Uint8Array, void, undefined> {
        await Promise.resolve();
        yield archive(entry({ name: 'large' }, Buffer.alloc(8 * 1024 * 1024, 'x')));
      }
      try {
        const conversion = converter.convert(background(), {
          source: source(),
          compression: 'none',
          expectedDiffId: undefined,
          destinationPath: join(disk, 'device'),
        });
        const error: unknown = await conversion.then(
          () => undefined,
          (reason: unknown) => reason,
        );
        expect(error).include({ class: 'ResourceExhausted', reason: 'IMAGE_STORE_FULL' });
        expect(readdirSync(disk)).deep.equal([]);
      } finally {
        await converter.close();
      }
    });
  });
});

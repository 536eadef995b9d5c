import { createHash } from 'node:crypto';
import { spawnSync } from 'node:child_process';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

import { expect } from 'chai';

import { background, sleep, withCancel } from '../../../../lib/base/context.js';
import { HerkosError } from '../../../../lib/base/errors.js';
import { WorkerLayerConverter } from '../../../../lib/image/convert/converter.js';
import type { ConvertRequest } from '../../../../lib/image/convert/types.js';
import { archive, entry, header } from '../../wire/tar/tar-builder.js';
import { failure, inScratch, listing, pieces } from './scratch.js';
import { tableOf } from './tree.js';

const digestOf = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

const tar = archive(
  entry({ name: 'etc/passwd' }, 'root:x:0:0::/:/bin/sh\n'),
  entry({ name: 'big' }, Buffer.alloc(3_000_000, 'abc')),
);

describe('layer converter', () => {
  let converter: WorkerLayerConverter;

  before(() => {
    converter = new WorkerLayerConverter({ threadsMax: 2 });
  });
  after(async () => {
    await converter.close();
  });

  const request = (
    directory: string,
    bytes: Uint8Array,
    more: Partial<ConvertRequest> = {},
  ): ConvertRequest => ({
    source: pieces(bytes),
    compression: 'none',
    expectedDiffId: undefined,
    destinationPath: join(directory, 'layer'),
    ...more,
  });

  const encodings = {
    none: tar,
    gzip: gzipSync(tar),
    'gzip in several members': Buffer.concat([
      gzipSync(tar.subarray(0, 70_000)),
      gzipSync(tar.subarray(70_000)),
    ]),
    zstd: spawnSync('zstd', ['-c', '-q'], { input: tar, maxBuffer: 2 ** 26 }).stdout,
  } as const;

  for (const [name, bytes] of Object.entries(encodings))
    it(`converts ${name} and tells digests and sizes`, async () => {
      await inScratch(async (directory) => {
        const compression = name.startsWith('gzip') ? 'gzip' : name === 'zstd' ? 'zstd' : 'none';
        const result = await converter.convert(
          background(),
          request(directory, bytes, {
            compression,
            expectedDiffId: digestOf(tar),
            expectedDigest: digestOf(bytes),
            expectedBytes: bytes.length,
          }),
        );
        const facts = await stat(join(directory, 'layer'));
        expect(result).deep.equal({
          diffId: digestOf(tar),
          digest: digestOf(bytes),
          compressedBytes: bytes.length,
          uncompressedBytes: tar.length,
          deviceBytes: facts.size,
          entries: 3,
        });
        expect(facts.mode & 0o777).equal(0o440);
        expect(facts.size % (2 * 1024 * 1024)).equal(0);
        const table = await tableOf(join(directory, 'layer'));
        expect(table['etc/passwd']?.content).equal('root:x:0:0::/:/bin/sh\n');
        expect(table['big']?.content.length).equal(3_000_000);
        expect(await listing(directory)).deep.equal(['layer']);
      });
    });

  it('decodes zstd without the program', async () => {
    const path = process.env['PATH'];
    process.env['PATH'] = '/nonexistent';
    const own = new WorkerLayerConverter({ threadsMax: 1 });
    try {
      await inScratch(async (directory) => {
        const result = await own.convert(
          background(),
          request(directory, encodings.zstd, { compression: 'zstd', expectedDiffId: digestOf(tar) }),
        );
        expect(result.uncompressedBytes).equal(tar.length);
        const cut = encodings.zstd.subarray(0, encodings.zstd.length - 20);
        expect(
          await failure(own.convert(background(), request(directory, cut, { compression: 'zstd' }))),
        ).property('class', 'DataLoss');
      });
    } finally {
      process.env['PATH'] = path;
      await own.close();
    }
  });

  it('gives the same bytes each time', async () => {
    await inScratch(async (directory) => {
      const results: string[] = [];
      for (const name of ['one', 'two']) {
        await converter.convert(
          background(),
          request(directory, tar, {
            destinationPath: join(directory, name),
            source: pieces(tar, name.length * 777),
          }),
        );
        results.push(digestOf(await readFile(join(directory, name))));
      }
      expect(results[0]).equal(results[1]);
    });
  });

  it('runs more conversions than it has threads', async () => {
    await inScratch(async (directory) => {
      const names = Array.from({ length: 7 }, (_, index) => `layer-${String(index)}`);
      await Promise.all(
        names.map((name) =>
          converter.convert(
            background(),
            request(directory, tar, { destinationPath: join(directory, name) }),
          ),
        ),
      );
      expect(await listing(directory)).deep.equal(names);
    });
  });

  const hole = header({ name: 'x', size: 2 ** 33 - 1 });
  const bomb = gzipSync(archive(entry({ name: 'zeros' }, Buffer.alloc(40_000_000))));
  const failures: Readonly<Record<string, readonly [Uint8Array, Partial<ConvertRequest>, string, RegExp]>> = {
    'a wrong digest of the tar': [
      tar,
      { expectedDiffId: digestOf(Buffer.from('other')) },
      'DataLoss',
      /digest/,
    ],
    'a wrong digest of the blob': [
      tar,
      { expectedDigest: digestOf(Buffer.from('other')) },
      'DataLoss',
      /digest/,
    ],
    'a blob that is too long': [tar, { expectedBytes: 100 }, 'DataLoss', /larger than the 100 bytes/],
    'a blob that is too short': [tar, { expectedBytes: tar.length + 1 }, 'DataLoss', /bytes, not the/],
    'a truncated tar': [tar.subarray(0, 200_000), {}, 'DataLoss', /middle of an entry/],
    'a truncated gzip stream': [
      encodings.gzip.subarray(0, encodings.gzip.length - 9),
      { compression: 'gzip' },
      'DataLoss',
      /gzip/,
    ],
    'an empty gzip stream': [Buffer.alloc(0), { compression: 'gzip' }, 'DataLoss', /gzip/],
    'an empty zstd stream': [Buffer.alloc(0), { compression: 'zstd' }, 'DataLoss', /zstd/],
    'something that is not gzip': [tar, { compression: 'gzip' }, 'DataLoss', /gzip/],
    'something that is not zstd': [tar, { compression: 'zstd' }, 'DataLoss', /zstd/],
    'a truncated zstd stream': [
      encodings.zstd.subarray(0, encodings.zstd.length - 20),
      { compression: 'zstd' },
      'DataLoss',
      /zstd/,
    ],
    'a file that says it is larger than the archive': [hole, {}, 'DataLoss', /middle of an entry/],
    'a gzip bomb': [
      bomb,
      { compression: 'gzip', limits: { ratioGraceBytes: 10_000_000 } },
      'ResourceExhausted',
      /200 times/,
    ],
    'too many bytes': [
      tar,
      { limits: { uncompressedBytesMax: 1_000_000 } },
      'ResourceExhausted',
      /larger than/,
    ],
    'too many entries': [tar, { limits: { entriesMax: 2 } }, 'ResourceExhausted', /more than 2 entries/],
    'too many names': [
      tar,
      { limits: { metadataBytesMax: 10 } },
      'ResourceExhausted',
      /names and attributes/,
    ],
    'a device that is too large': [
      tar,
      { limits: { deviceBytesMax: 1_000_000 } },
      'ResourceExhausted',
      /device file/,
    ],
    'what would leave too little of the disk': [
      tar,
      { limits: { freeBytesMin: 2 ** 60 } },
      'ResourceExhausted',
      /less than .* of the disk free/,
    ],
    'a name out of the tree': [archive(entry({ name: '../x' })), {}, 'InvalidArgument', /'\.\.'/],
  };
  for (const [what, [bytes, more, errorClass, message]] of Object.entries(failures))
    it(`refuses ${what} and leaves nothing behind`, async () => {
      await inScratch(async (directory) => {
        const error = await failure(converter.convert(background(), request(directory, bytes, more)));
        expect(error).instanceOf(HerkosError);
        expect(error).property('class', errorClass);
        expect(error).property('message').match(message);
        expect(await listing(directory)).deep.equal([]);
      });
    });

  it('takes absolute names when it is told to', async () => {
    await inScratch(async (directory) => {
      const bytes = archive(entry({ name: '/app/server' }, 'x'));
      await converter.convert(background(), request(directory, bytes, { absoluteNames: 'strip' }));
      expect(Object.keys(await tableOf(join(directory, 'layer')))).deep.equal(['', 'app', 'app/server']);
    });
  });

  it("fails with the source's own error", async () => {
    await inScratch(async (directory) => {
      async function* source(): AsyncGenerator<Uint8Array, void, undefined> {
        yield* pieces(tar.subarray(0, 100_000));
        throw new HerkosError('Unavailable', 'the registry hung up');
      }
      const error = await failure(
        converter.convert(background(), request(directory, tar, { source: source() })),
      );
      expect(error).include({ class: 'Unavailable', message: 'the registry hung up' });
      expect(await listing(directory)).deep.equal([]);
    });
  });

  it('stops when its context ends, even if the source hangs', async () => {
    await inScratch(async (directory) => {
      const ctx = withCancel(background());
      async function* source(): AsyncGenerator<Uint8Array, void, undefined> {
        yield tar.subarray(0, 100_000);
        ctx.cancel(new HerkosError('Cancelled', 'enough'));
        await new Promise(() => undefined);
      }
      const error = await failure(converter.convert(ctx, request(directory, tar, { source: source() })));
      expect(error).include({ class: 'Cancelled', message: 'enough' });
      expect(await listing(directory)).deep.equal([]);
      // The thread is fit for the next one.
      await converter.convert(background(), request(directory, tar));
    });
  });

  it('does not let the source of a job that is over end the next job of its thread', async () => {
    await inScratch(async (directory) => {
      const own = new WorkerLayerConverter({ threadsMax: 1 });
      const transfer = withCancel(background());
      async function* hanging(): AsyncGenerator<Uint8Array, void, undefined> {
        yield Buffer.alloc(600_000, 'x');
        await sleep(transfer, 60_000);
      }
      const broken = failure(own.convert(background(), request(directory, tar, { source: hanging() })));
      const next = own.convert(background(), request(directory, tar, { source: pieces(tar, 1000) }));
      expect(await broken).property('class', 'DataLoss');
      transfer.cancel();
      expect((await next).diffId).equal(digestOf(tar));
      await own.close();
    });
  });

  it('does not read far ahead of what it can convert', async () => {
    await inScratch(async (directory) => {
      const total = 64 * 1024 * 1024;
      let taken = 0;
      let converted = 0;
      let aheadMax = 0;
      async function* source(): AsyncGenerator<Uint8Array, void, undefined> {
        const body = Buffer.alloc(256 * 1024);
        yield header({ name: 'f', size: total });
        for (let at = 0; at < total; at += body.length) {
          await Promise.resolve();
          taken += body.length;
          aheadMax = Math.max(aheadMax, taken - converted);
          yield body;
        }
        yield Buffer.alloc(1024);
      }
      await converter.convert(background(), request(directory, tar, { source: source() }), (progress) => {
        converted = progress.uncompressedBytes;
      });
      // The queue of 8 MiB, what is in the worker, and 4 MiB between two reports.
      expect(aheadMax).lessThan(20 * 1024 * 1024);
    });
  });

  it('survives a layer whose metadata fills the heap of its thread', async function () {
    this.timeout(60_000);
    const own = new WorkerLayerConverter({ threadsMax: 1, heapMib: 24 });
    try {
      await inScratch(async (directory) => {
        async function* source(): AsyncGenerator<Uint8Array, void, undefined> {
          for (let index = 0; index < 400_000; index += 1) {
            if (index % 100 === 0) await Promise.resolve();
            yield header({ name: `file-${String(index)}` });
          }
        }
        const error = await failure(own.convert(background(), request(directory, tar, { source: source() })));
        expect(error).include({ class: 'ResourceExhausted', reason: 'LAYER_TOO_LARGE' });
        expect(await listing(directory)).deep.equal([]);
        // A new thread takes the place of the dead one.
        await own.convert(background(), request(directory, tar));
      });
    } finally {
      await own.close();
    }
  });

  it('refuses work once it is closed', async () => {
    await inScratch(async (directory) => {
      const own = new WorkerLayerConverter();
      await own.close();
      expect(await failure(own.convert(background(), request(directory, tar)))).property(
        'class',
        'Unavailable',
      );
    });
  });

  it('joins device files into directories of one', async () => {
    await inScratch(async (directory) => {
      const layers = [
        archive(
          entry({ name: 'a' }, 'one'),
          entry({ name: 'b', type: '1', linkName: 'a' }),
          entry({ name: 'd/x', uid: 70_000 }, 'X'),
        ),
        archive(
          entry({ name: 'd/.wh.x' }),
          entry({ name: '.wh..wh..opq' }),
          entry({ name: 's', type: '2', linkName: 'a' }),
        ),
        tar,
      ];
      const files: string[] = [];
      for (const [index, bytes] of layers.entries()) {
        files.push(join(directory, `in-${String(index)}`));
        await converter.convert(
          background(),
          request(directory, bytes, { destinationPath: files[index] ?? '' }),
        );
      }
      const joined = join(directory, 'joined');
      const result = await converter.join(background(), { files, destinationPath: joined });
      expect(result.subdirs).deep.equal(['0', '1', '2']);
      expect((await stat(joined)).size).equal(result.deviceBytes);
      const table = await tableOf(joined);
      for (const [index, path] of files.entries())
        for (const [name, row] of Object.entries(await tableOf(path)))
          expect(table[name === '' ? String(index) : `${String(index)}/${name}`], name).deep.equal(row);
      expect(table['0/a']?.links).equal(2);
      await writeFile(join(directory, 'junk'), Buffer.alloc(10_000));
      const error = await failure(
        converter.join(background(), {
          files: [joined, join(directory, 'junk')],
          destinationPath: join(directory, 'no'),
        }),
      );
      expect(error).property('class', 'DataLoss');
      expect(await listing(directory)).deep.equal(['in-0', 'in-1', 'in-2', 'joined', 'junk']);
    });
  });
});

import { spawnSync } from 'node:child_process';

import { expect } from 'chai';

import { HerkosError } from '../../../../lib/base/errors.js';
import { openDecompressor } from '../../../../lib/image/convert/decompress.js';
import { ZstdFrames } from '../../../../lib/image/convert/zstd-frames.js';
import { failure } from './scratch.js';

const zstd = (input: Buffer, ...options: string[]): Buffer =>
  spawnSync('zstd', ['-c', '-q', ...options], { input, maxBuffer: 2 ** 26 }).stdout;

/** A frame of one empty block with this window descriptor. */
const windowed = (descriptor: number): Buffer =>
  Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, descriptor, 1, 0, 0]);
const skippable = Buffer.from([0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
const large = windowed(20 << 3);
/** The size of the content, 2^40, stands for that of the window. */
const single = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0]);
const text = Buffer.alloc(1_000_000, 'some text ');

function read(stream: Buffer, piece: number): void {
  const frames = new ZstdFrames();
  for (let at = 0; at < stream.length; at += piece) frames.push(stream.subarray(at, at + piece));
}

describe('zstd frames', () => {
  const good: Readonly<Record<string, Buffer>> = {
    'of the program': zstd(text),
    'with a checksum and no size': zstd(text, '--check', '--no-content-size'),
    'with the largest window': windowed(17 << 3),
    'of runs, one after the other': Buffer.concat([zstd(Buffer.alloc(600_000)), skippable, zstd(text)]),
  };
  for (const [what, bytes] of Object.entries(good))
    it(`follows those ${what} up to one that wants too much`, () => {
      for (const piece of [1, 7, bytes.length + 100]) {
        read(bytes, piece);
        for (const bad of [large, single])
          expect(() => {
            read(Buffer.concat([bytes, bad]), piece);
          })
            .throws(HerkosError, /zstd frames need .* of memory/)
            .include({ class: 'ResourceExhausted', reason: 'LAYER_TOO_LARGE' });
      }
    });

  it('are looked at before they are decoded without the program', async () => {
    const path = process.env['PATH'];
    process.env['PATH'] = '/nonexistent';
    try {
      const decompressor = openDecompressor('zstd', () => undefined);
      expect(await failure(decompressor.write(Buffer.concat([large, large])))).include({
        class: 'ResourceExhausted',
      });
      decompressor.destroy();
    } finally {
      process.env['PATH'] = path;
    }
  });
});

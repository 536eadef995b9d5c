import { execFileSync } from 'node:child_process';

import { expect } from 'chai';

import { bzImagePayload, extractKernel, trimKernel } from '../../../guest/kernel.js';
import { background } from '../../../lib/base/context.js';
import { systemExec } from '../../../lib/base/exec.js';
import { rejection } from '../../tools/rejection.js';
import { elfFile, note } from './elf-builder.js';

const ctx = background();
const pvh = note('Xen', 18, Buffer.alloc(8, 1));
const code = Buffer.concat([Buffer.alloc(5000, 0x90), Buffer.alloc(3000)]);

/** Two sectors of setup, then `payload` 16 bytes into the rest. */
function bzImage(payload: Buffer): Buffer {
  const head = Buffer.alloc(3 * 512 + 16);
  head.writeUInt8(2, 0x1f1);
  head.write('HdrS', 0x202, 'latin1');
  head.writeUInt16LE(0x20f, 0x206);
  head.writeUInt32LE(16, 0x248);
  head.writeUInt32LE(payload.length, 0x24c);
  return Buffer.concat([head, payload, Buffer.alloc(100)]);
}

describe('the kernel of the guest', () => {
  const kernel = elfFile([
    { type: 4, data: pvh },
    { type: 1, data: code },
  ]);

  it('comes out of its compressed image', async () => {
    const size = Buffer.alloc(4);
    size.writeUInt32LE(kernel.length);
    const xz = Buffer.concat([execFileSync('xz', ['-c', '--check=crc32'], { input: kernel }), size]);
    const extracted = await extractKernel(ctx, systemExec, bzImage(xz));
    expect(extracted.equals(trimKernel(kernel))).to.be.true;
  });

  it('loses the zeros at its end and what lies behind it', () => {
    const trimmed = trimKernel(Buffer.concat([kernel, Buffer.alloc(10_000, 3)]));
    expect(trimmed.length).to.equal(kernel.length - 3000);
    // The file size of the second segment; its size in memory stays.
    expect(trimmed.readBigUInt64LE(64 + 56 + 32)).to.equal(5000n);
    expect(trimmed.readBigUInt64LE(64 + 56 + 40)).to.equal(8000n);
  });

  it('must have a PVH entry', () => {
    const without = elfFile([{ type: 1, data: code }]);
    expect(() => trimKernel(without)).to.throw('CONFIG_PVH');
  });

  it('must be in an image that is one, whole, and of a known compression', async () => {
    expect(() => bzImagePayload(Buffer.alloc(100))).to.throw('setup header');
    expect(() => bzImagePayload(bzImage(Buffer.alloc(1000)).subarray(0, 2000))).to.throw(
      'inside its payload',
    );
    const old = bzImage(Buffer.alloc(10));
    old.writeUInt16LE(0x207, 0x206);
    expect(() => bzImagePayload(old)).to.throw('older than 2.08');
    expect(await rejection(extractKernel(ctx, systemExec, bzImage(Buffer.from('LZ4!….'))))).to.have.property(
      'class',
      'InvalidArgument',
    );
    expect(
      await rejection(extractKernel(ctx, systemExec, bzImage(Buffer.from('fd377a585a00ffff', 'hex')))),
    ).to.have.property('class', 'Internal');
  });
});

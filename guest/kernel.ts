/**
 * From the compressed kernel of a distribution to the ELF file that QEMU enters by PVH, which saves the
 * guest the decompression at every boot.
 */
import type { Context } from '../lib/base/context.js';
import { HerkosError } from '../lib/base/errors.js';
import type { Exec } from '../lib/base/exec.js';
import { MIB } from '../lib/base/units.js';
import { notes, segmentType, segments } from './elf.js';

const kernelBytesMax = 256 * MIB;
/** PVH entry address (xen/include/public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY). */
const xenPvhEntry = 18;

/** Compressors by the first bytes of the payload, and the program that undoes each. */
const compressors: readonly { magic: string; program: string; args: string[] }[] = [
  { magic: 'fd377a585a00', program: 'xz', args: ['-dc', '--single-stream'] },
  { magic: '28b52ffd', program: 'zstd', args: ['-dc'] },
  { magic: '1f8b', program: 'gzip', args: ['-dc'] },
];

/**
 * The compressed payload inside a bzImage: setup header fields `setup_sects` (0x1f1), `HdrS` (0x202),
 * `payload_offset` (0x248) and `payload_length` (0x24c) of the x86 boot protocol, 2.08 and later.
 */
export function bzImagePayload(image: Buffer): Buffer {
  if (image.length < 0x250 || image.toString('latin1', 0x202, 0x206) !== 'HdrS')
    throw new HerkosError('InvalidArgument', 'the kernel image has no x86 setup header');
  if (image.readUInt16LE(0x206) < 0x208)
    throw new HerkosError('InvalidArgument', 'the kernel image speaks a boot protocol older than 2.08');
  const sectors = image.readUInt8(0x1f1);
  // A zero stands for four, as in the first kernels.
  const start = ((sectors === 0 ? 4 : sectors) + 1) * 512 + image.readUInt32LE(0x248);
  const end = start + image.readUInt32LE(0x24c);
  if (end > image.length)
    throw new HerkosError('InvalidArgument', 'the kernel image ends inside its payload');
  return image.subarray(start, end);
}

/** Uncompressed ELF kernel of a bzImage, checked to have a PVH entry. */
export async function extractKernel(ctx: Context, exec: Exec, image: Buffer): Promise<Buffer> {
  const payload = bzImagePayload(image);
  const compressor = compressors.find(({ magic }) => payload.toString('hex', 0, magic.length / 2) === magic);
  if (compressor === undefined)
    throw new HerkosError(
      'InvalidArgument',
      `the kernel's payload begins with ${payload.toString('hex', 0, 6)}; xz, zstd and gzip are known`,
    );
  const { stdout } = await exec.run(ctx, compressor.program, compressor.args, {
    // The last four bytes are the unpacked size, which is no part of the compressed stream.
    input: payload.subarray(0, compressor.program === 'xz' ? payload.length - 4 : payload.length),
    outputBytesMax: kernelBytesMax,
  });
  return trimKernel(stdout);
}

/**
 * Cuts off what no boot reads: relocations behind the ELF file, section headers, and the zeros at the end
 * of the last segment, which the loader makes itself.
 * @throws InvalidArgument when the kernel has no PVH entry
 */
export function trimKernel(file: Buffer): Buffer {
  const what = 'the kernel';
  const entry = notes(file, what).find(({ owner, type }) => owner === 'Xen' && type === xenPvhEntry);
  if (entry === undefined)
    throw new HerkosError('InvalidArgument', 'the kernel has no PVH entry (CONFIG_PVH is off)');
  const loads = segments(file, what).filter(({ type }) => type === segmentType.load);
  const last = loads.reduce((a, b) => (b.offset > a.offset ? b : a));
  const body = file.subarray(last.offset, last.offset + last.fileSize);
  const used = lastNonZero(body) + 1;
  const trimmed = Buffer.from(file.subarray(0, last.offset + used));
  trimmed.writeBigUInt64LE(BigInt(used), last.headerOffset + 32);
  // No section headers: offset, count and the number of the names' section.
  trimmed.writeBigUInt64LE(0n, 40);
  trimmed.writeUInt16LE(0, 60);
  trimmed.writeUInt16LE(0, 62);
  return trimmed;
}

function lastNonZero(bytes: Buffer): number {
  let at = bytes.length - 1;
  while (at >= 0 && bytes[at] === 0) at -= 1;
  return at;
}

/**
 * The head of a device file: 2 MiB that let the kernel of a guest map the rest with DAX.
 *
 *     0        4 KiB                2 MiB                     end (multiple of 2 MiB)
 *     | zeros  | info block | zeros | EROFS image …   | hole |
 *
 * The info block is the kernel's `struct nd_pfn_sb` (drivers/nvdimm/pfn.h, read by nd_pfn_validate in
 * pfn_devs.c). The namespace driver of both virtio-pmem and NVDIMM honours it: /dev/pmemN then begins
 * behind the head, and the page structs that DAX needs live in the guest's memory (PFN_MODE_RAM), so
 * that the guest never has to write to the device.
 */
import { blockBytes } from './format.js';

/** Bytes in front of the image, and what the size of the whole file is a multiple of. */
export const deviceHeadBytes = 2 * 1024 * 1024;
const infoOffset = 4096;
const infoBytes = 4096;
const signature = 'NVDIMM_PFN_INFO\0';
const modeRam = 1;

/** Size of the device file that holds an image of `imageBytes`. */
export function deviceBytesFor(imageBytes: number): number {
  return deviceHeadBytes + Math.max(1, Math.ceil(imageBytes / deviceHeadBytes)) * deviceHeadBytes;
}

/** The bytes at the start of a device file of `deviceBytes`, up to the end of the info block. */
export function deviceHead(deviceBytes: number, uuid: Uint8Array): Buffer {
  const head = Buffer.alloc(infoOffset + infoBytes);
  const info = head.subarray(infoOffset);
  info.write(signature, 0, 'latin1');
  info.set(uuid.subarray(0, 16), 16);
  // parent_uuid (32-47) stays zero: neither virtio-pmem nor a label-less NVDIMM has one.
  info.writeUInt16LE(1, 52); // major version
  info.writeUInt16LE(4, 54); // minor version: page size and struct size are stated
  info.writeBigUInt64LE(BigInt(deviceHeadBytes), 56);
  info.writeBigUInt64LE(BigInt((deviceBytes - deviceHeadBytes) / blockBytes), 64);
  info.writeUInt32LE(modeRam, 72);
  info.writeUInt32LE(deviceHeadBytes, 84); // align, the size of a huge page
  info.writeUInt32LE(4096, 88); // page size
  info.writeUInt16LE(64, 92); // size of struct page
  info.writeBigUInt64LE(fletcher64(info.subarray(0, infoBytes - 8)), infoBytes - 8);
  return head;
}

/** True when `head`, the first bytes of a file, carries a valid info block with our data offset. */
export function hasDeviceHead(head: Buffer): boolean {
  if (head.length < infoOffset + infoBytes) return false;
  const info = head.subarray(infoOffset, infoOffset + infoBytes);
  return (
    info.toString('latin1', 0, 16) === signature &&
    info.readBigUInt64LE(56) === BigInt(deviceHeadBytes) &&
    info.readBigUInt64LE(infoBytes - 8) === fletcher64(info.subarray(0, infoBytes - 8))
  );
}

/** nd_fletcher64 over little-endian words; the checksum field, being zero while it is summed, is given here by its place. */
function fletcher64(words: Buffer): bigint {
  let low = 0n;
  let high = 0n;
  for (let at = 0; at < words.length; at += 4) {
    low = (low + BigInt(words.readUInt32LE(at))) & 0xffff_ffffn;
    high += low;
  }
  // The two zero words of the checksum field itself.
  high += 2n * low;
  return ((high & 0xffff_ffffn) << 32n) | low;
}

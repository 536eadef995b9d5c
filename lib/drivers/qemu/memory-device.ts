/**
 * Sizes of the one device that carries hot-plugged memory. Linux on x86-64 takes memory in blocks of
 * 128 MiB, of which virtio-mem can leave parts unplugged, down to 4 MiB
 * (Linux drivers/virtio/virtio_mem.c, "sub-block mode").
 */

/** What QEMU plugs and unplugs at a time: a huge page. */
export const memoryBlockMib = 2;
/** What the guest plugs and unplugs at a time. */
const guestBlockMib = 4;
const guestSectionMib = 128;
/** The device may start anywhere, and the guest cannot use an incomplete section at either end. */
const misalignedMib = 2 * guestSectionMib;

/** Size of the device that can give `memoryMibMax` to the guest; 0 when it may give none. */
export function memoryDeviceMib(memoryMibMax: number): number {
  return memoryMibMax === 0 ? 0 : roundUp(memoryMibMax, guestSectionMib) + misalignedMib;
}

/** What is asked of the device to give the guest at least `mib` more. */
export function requestedMib(mib: number): number {
  return roundUp(Math.max(0, mib), guestBlockMib);
}

function roundUp(mib: number, step: number): number {
  return Math.ceil(mib / step) * step;
}

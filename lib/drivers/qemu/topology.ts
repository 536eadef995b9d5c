/**
 * Where devices sit on the PCI bus. All places are fixed: the guest's agent finds a device by its
 * place, and a VM made from a template has the same machine as the template.
 *
 *     0      host bridge          3      entropy
 *     1      agent's serial port  4.0 …  root ports, eight functions a slot
 *     2      guest's root image   a      balloon
 *                                  1f     ICH9 (part of the machine)
 */
import { HerkosError } from '../../base/errors.js';

export const serialSlot = 1;
export const rootImageSlot = 2;
export const entropySlot = 3;
export const balloonSlot = 0xa;
const firstPortSlot = 4;
const functionsPerSlot = 8;
/** Slots 4 … 9: all of them are written with one digit, so that no reader can take decimal for hex. */
export const portCountMax = 6 * functionsPerSlot;
/** The agent's port is number 1; number 0 is kept for a console (virtio 1.2 §5.3.5). */
export const serialPortFirst = 2;
/** A virtio-serial device has 31 ports in QEMU. */
export const serialPortCount = 31 - serialPortFirst;
/** Functions behind one root port. */
export const functionCountMax = 8;

export interface PortPlace {
  readonly slot: number;
  readonly function: number;
}

/** Place of root port `index` on bus 0. */
export function portPlace(index: number): PortPlace {
  if (!Number.isInteger(index) || index < 0 || index >= portCountMax)
    throw new HerkosError('Internal', `there is no root port ${String(index)}`);
  return {
    slot: firstPortSlot + Math.floor(index / functionsPerSlot),
    function: index % functionsPerSlot,
  };
}

/** QEMU's id of root port `index`; also the name of the bus behind it. */
export function portId(index: number): string {
  return `rp${String(index)}`;
}

/** `<slot>.<function>`, as QEMU's addr and the agent's locator write it. */
export function placeText(place: PortPlace): string {
  return `${String(place.slot)}.${String(place.function)}`;
}

/**
 * How far a guest may shrink at once. Memory that is taken from a guest without asking is taken from its
 * programs: what its kernel cannot move or drop it makes room for by killing. So it is asked what it can
 * spare, given back only half of that, and asked again.
 */
import { MIB } from '../base/units.js';
import type { GuestMemory } from './ports.js';

/** What a guest keeps free for what its programs take meanwhile: the larger of the two. */
const marginMibMin = 32;
const marginShare = 0.1;
/** At the end of the way halves are not worth a step each; a section of the guest's memory is. */
const stepMibMin = 128;
/** Less is not worth a step at all: memory comes and goes in blocks of this size. */
export const blockMib = 4;

/**
 * What to ask of a guest on its way from `mib` down to `targetMib`: between the two, and `mib` itself when
 * it can spare nothing.
 */
export function nextMib(mib: number, targetMib: number, { totalBytes, availableBytes }: GuestMemory): number {
  const marginBytes = Math.max(marginMibMin * MIB, totalBytes * marginShare);
  const spareMib = Math.floor((availableBytes - marginBytes) / MIB);
  const stepMib = Math.min(spareMib, Math.max(stepMibMin, Math.ceil(spareMib / 2)), mib - targetMib);
  return mib - targetMib <= 0 || stepMib < Math.min(blockMib, mib - targetMib) ? mib : mib - stepMib;
}

/**
 * The network card that a template and its clones have from the beginning, at the first root port. A guest
 * takes its time over a new card: it has it behind it before it is saved, and a pod only gives the card its
 * address. Before that the guest raises it for a rehearsal only, where nothing is forwarded.
 */
import { randomBytes } from 'node:crypto';

import type { VmMemory } from '../../vm/ports.js';
import type { DeviceEntry } from './device-book.js';
import { plugNic } from './device-commands.js';
import type { QmpCommand } from './device-commands.js';

/** By which the guest knows the card. Locally administered; nobody sends from it or to it. */
export const firstCardMac = '02:68:6b:00:00:00';

/** The card, plugged and nobody's yet; undefined for a machine that boots for a pod. */
export function firstCard(hasTemplate: boolean): DeviceEntry | undefined {
  if (!hasTemplate) return undefined;
  return { kind: 'nic', index: 0, keys: [firstCardMac], owners: [spareOwner], state: 'plugged' };
}

/** Owner of a card that no pod has yet. */
export const spareOwner = 'spare';

/**
 * What plugs the card of a machine with this memory. A clone's guest goes on with the template's address;
 * what the card falls back to when a guest resets it is the clone's own.
 */
export function firstCardCommands(memory: VmMemory, tap: string): QmpCommand[] {
  const card = firstCard(memory.kind !== 'own');
  if (card === undefined) return [];
  return plugNic(card, tap, memory.kind === 'clone' ? randomMac() : firstCardMac);
}

/** Locally administered, unicast. */
function randomMac(): string {
  const tail = randomBytes(5).toString('hex').match(/../g) ?? [];
  return ['02', ...tail].join(':');
}

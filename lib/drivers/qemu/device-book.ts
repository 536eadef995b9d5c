/**
 * Which device is where and who uses it. The list is written to the VM's run directory before each
 * step, and compared with what QEMU really has when a daemon takes the VM over.
 *
 *     plugging ──► plugged ──► leaving ──► (free)
 *         └── failed, or the daemon died ──►┘
 */
import { z } from 'zod';

import { HerkosError } from '../../base/errors.js';
import type { DeviceLocator } from '../../model/vm.js';
import { functionCountMax, placeText, portPlace, serialPortCount } from './topology.js';

const entrySchema = z.strictObject({
  kind: z.enum(['layers', 'nvdimm', 'disk', 'nic', 'memory', 'serial', 'cpu']),
  /** The place, among those of its sort: see `placesOf`. */
  index: z.number().int().nonnegative(),
  /**
   * What is plugged: layer keys by function, the disk's path, the NIC's address, the serial port's name
   * and socket, the vCPU's number, the most MiB that the memory device can give.
   */
  keys: z.array(z.string()).min(1).max(functionCountMax),
  /** Who uses it; nobody any more while it is leaving. */
  owners: z.array(z.string()),
  state: z.enum(['plugging', 'plugged', 'leaving']),
});

export const bookSchema = z.strictObject({
  schemaVersion: z.literal(1),
  entries: z.array(entrySchema).readonly(),
});

export type DeviceEntry = z.infer<typeof entrySchema>;
export type DeviceKind = DeviceEntry['kind'];

export interface BookLimits {
  readonly portCount: number;
  readonly slotCount: number;
}

export class DeviceBook {
  readonly #limits: BookLimits;
  readonly #entries: Set<DeviceEntry>;

  constructor(limits: BookLimits, entries: readonly DeviceEntry[] = []) {
    this.#limits = limits;
    this.#entries = new Set(entries);
  }

  get entries(): readonly DeviceEntry[] {
    return [...this.#entries];
  }

  toJson(): string {
    return JSON.stringify({ schemaVersion: 1, entries: this.entries } satisfies z.infer<typeof bookSchema>);
  }

  /** Takes a free place. @throws HerkosError `ResourceExhausted` when there is none */
  add(kind: DeviceKind, keys: readonly string[], owner: string): DeviceEntry {
    return this.addAt(this.#freeIndex(kind), kind, keys, owner);
  }

  /** Takes a place that the caller knows to be free. */
  addAt(index: number, kind: DeviceKind, keys: readonly string[], owner: string): DeviceEntry {
    const entry: DeviceEntry = { kind, index, keys: [...keys], owners: [owner], state: 'plugging' };
    this.#entries.add(entry);
    return entry;
  }

  remove(entry: DeviceEntry): void {
    this.#entries.delete(entry);
  }

  /** The entry that has `key` plugged; what is leaving cannot be shared any more. */
  plugged(kind: DeviceKind, key: string): DeviceEntry | undefined {
    return this.entries.find(
      (entry) => entry.kind === kind && entry.state === 'plugged' && entry.keys.includes(key),
    );
  }

  ownedBy(owner: string): DeviceEntry[] {
    return this.entries.filter((entry) => entry.owners.includes(owner));
  }

  ofKind(kind: DeviceKind): DeviceEntry[] {
    return this.entries.filter((entry) => entry.kind === kind);
  }

  #freeIndex(kind: DeviceKind): number {
    const places = placesOf(kind);
    const { count, what } = this.#room(places);
    const taken = this.entries.filter((entry) => placesOf(entry.kind) === places);
    const used = new Set(taken.map((entry) => entry.index));
    for (let index = 0; index < count; index += 1) if (!used.has(index)) return index;
    throw new HerkosError('ResourceExhausted', `all ${String(count)} ${what}`, {
      reason: 'VM_PORTS_EXHAUSTED',
    });
  }

  #room(places: Places): { readonly count: number; readonly what: string } {
    switch (places) {
      case 'root-port':
        return { count: this.#limits.portCount, what: `hot-plug ports ${inUse}` };
      case 'slot':
        return { count: this.#limits.slotCount, what: `NVDIMM slots ${inUse}` };
      case 'serial':
        return { count: serialPortCount, what: 'serial ports of this VM are in use' };
      case 'cpu':
        // Their places are QEMU's to say.
        return { count: 0, what: 'vCPUs of this VM are in use' };
    }
  }
}

const inUse =
  'of this VM are in use; a pod needs one for its network, one to grow, and about two for each container';

type Places = 'root-port' | 'slot' | 'serial' | 'cpu';

/** Root ports, slots of the memory bus, ports of the serial bus, and processors are counted apart. */
function placesOf(kind: DeviceKind): Places {
  switch (kind) {
    case 'layers':
    case 'disk':
    case 'nic':
    case 'memory':
      return 'root-port';
    case 'nvdimm':
      return 'slot';
    case 'serial':
      return 'serial';
    case 'cpu':
      return 'cpu';
  }
}

/** Where the guest finds key number `position` of the entry. */
export function locatorOf(entry: DeviceEntry, position: number): DeviceLocator {
  // ACPI counts NVDIMM handles from one (QEMU hw/acpi/nvdimm.c).
  if (entry.kind === 'nvdimm') return { kind: 'nfit', handle: entry.index + 1 };
  return { kind: 'pci', rootPort: placeText(portPlace(entry.index)), function: position };
}

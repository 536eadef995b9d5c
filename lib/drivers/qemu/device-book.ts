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
import { functionCountMax, placeText, portPlace } from './topology.js';

/** A root port (`port`) or an NVDIMM slot of the memory bus (`slot`). */
const entrySchema = z.strictObject({
  kind: z.enum(['layers', 'nvdimm', 'disk', 'nic']),
  index: z.number().int().nonnegative(),
  /** What is plugged: layer keys by function, the disk's path, the NIC's address. */
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
    const entry: DeviceEntry = {
      kind,
      index: this.#freeIndex(kind),
      keys: [...keys],
      owners: [owner],
      state: 'plugging',
    };
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

  #freeIndex(kind: DeviceKind): number {
    const onSlots = kind === 'nvdimm';
    const count = onSlots ? this.#limits.slotCount : this.#limits.portCount;
    const used = new Set(
      this.entries.filter((entry) => (entry.kind === 'nvdimm') === onSlots).map((entry) => entry.index),
    );
    for (let index = 0; index < count; index += 1) if (!used.has(index)) return index;
    const what = onSlots ? 'NVDIMM slots' : 'hot-plug ports';
    throw new HerkosError(
      'ResourceExhausted',
      `all ${String(count)} ${what} of this VM are in use; a pod needs one for its network and about two for each container`,
      { reason: 'VM_PORTS_EXHAUSTED' },
    );
  }
}

/** Where the guest finds key number `position` of the entry. */
export function locatorOf(entry: DeviceEntry, position: number): DeviceLocator {
  // ACPI counts NVDIMM handles from one (QEMU hw/acpi/nvdimm.c).
  if (entry.kind === 'nvdimm') return { kind: 'nfit', handle: entry.index + 1 };
  return { kind: 'pci', rootPort: placeText(portPlace(entry.index)), function: position };
}

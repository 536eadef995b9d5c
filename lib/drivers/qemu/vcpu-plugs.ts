import { z } from 'zod';

import type { Context } from '../../base/context.js';
import { background, sleep, underDeadline } from '../../base/context.js';
import { HerkosError } from '../../base/errors.js';
import type { DeviceEntry } from './device-book.js';
import { deviceIds, plugCpu } from './device-commands.js';
import type { MachineSizeOptions } from './machine-size.js';
import type { Plugger } from './plugger.js';
import { whileStill } from './translation-room.js';

/** Nobody gives vCPUs up by going: they are the machine's. */
const machineOwner = 'machine';

/** Without KVM there may be no room for a vCPU just now. */
const roomTriesMax = 10;
const roomRetryMs = 200;
/** On top of the guest's time: for other devices' turn, and for looking at QEMU. */
const settleTimeoutMs = 10_000;

/** An item of `query-hotpluggable-cpus` (QEMU qapi/machine.json); `qom-path` is there when the place is taken. */
const slotSchema = z.object({
  type: z.string(),
  props: z.record(z.string(), z.number()),
  'qom-path': z.string().optional(),
});
type Slot = z.infer<typeof slotSchema>;

/** The vCPUs that a VM has beyond those it booted with. */
export class VcpuPlugs {
  readonly #plugger: Plugger;
  readonly #options: MachineSizeOptions;

  constructor(plugger: Plugger, options: MachineSizeOptions) {
    this.#plugger = plugger;
    this.#options = options;
  }

  async current(ctx: Context): Promise<number> {
    return (await this.#slots(ctx)).filter(isTaken).length;
  }

  /** @throws HerkosError `ResourceExhausted` when the machine was not made for so many */
  async check(ctx: Context, count: number): Promise<void> {
    const { length } = await this.#slots(ctx);
    if (count > length)
      throw new HerkosError(
        'ResourceExhausted',
        `this VM can have ${String(length)} vCPUs, not ${String(count)}`,
        { reason: 'VM_VCPUS_EXHAUSTED' },
      );
  }

  /**
   * Returns how many there are then, which may be fewer: QEMU without KVM cannot always start another.
   * Plugged ones the guest may still have to bring online.
   */
  async resize(ctx: Context, count: number): Promise<number> {
    const wanted = Math.max(count, this.#options.boot.vcpus);
    await this.#settleLeaving();
    const leaving = await this.#plugger.exclusive(ctx, () => this.#change(ctx, wanted));
    // A guest that works fills the translation buffer, which is then emptied.
    for (let tries = 1; tries < roomTriesMax && (await this.current(ctx)) < wanted; tries += 1) {
      await sleep(ctx, roomRetryMs);
      await this.#plugger.exclusive(ctx, () => this.#change(ctx, wanted));
    }
    try {
      await this.#plugger.haveLeft(ctx, leaving);
    } finally {
      await this.#keepStayers(ctx, leaving);
    }
    return this.current(ctx);
  }

  /** Plugs what is missing; returns what the guest is asked to let go. */
  async #change(ctx: Context, wanted: number): Promise<DeviceEntry[]> {
    const slots = await this.#slots(ctx);
    await this.#forgetGone(slots);
    // What is leaving is there still, and must not be counted on.
    const present = slots.filter(isTaken).length - this.#leaving().length;
    if (wanted < present) return this.#leave(present - wanted);
    if (wanted > present) await this.#plugMore(ctx, slots, wanted - present);
    return [];
  }

  async #plugMore(ctx: Context, slots: readonly Slot[], count: number): Promise<void> {
    const { session } = this.#plugger;
    if (!this.#options.emulated) {
      await this.#plugFirst(ctx, slots, count);
      return;
    }
    const vcpus = slots.filter(isTaken).length;
    await whileStill(ctx, session, { vcpus, vcpusMax: slots.length }, async (free) => {
      if (free < count)
        this.#plugger.debug('QEMU has no room for more vCPUs now', { wanted: count, possible: free });
      await this.#plugFirst(ctx, slots, Math.min(free, count));
    });
  }

  /** Into the first free places. */
  async #plugFirst(ctx: Context, slots: readonly Slot[], count: number): Promise<void> {
    const free = [...slots.entries()].filter(([, slot]) => !isTaken(slot));
    for (const [index, slot] of free.slice(0, count)) {
      const entry = this.#plugger.book.addAt(index, 'cpu', [`vcpu${String(index)}`], machineOwner);
      await this.#plugger.plug(ctx, entry, () => plugCpu(entry, slot.type, slot.props));
    }
  }

  /** The caller of an earlier resize may have left while the guest was asked: it lets them go, or uses them on. */
  async #settleLeaving(): Promise<void> {
    const leaving = this.#leaving();
    if (leaving.length === 0) return;
    const timeoutMs = this.#options.unplugTimeoutMs + settleTimeoutMs;
    await underDeadline(background(), timeoutMs, 'settling vCPUs that were to leave', async (step) => {
      await this.#plugger.haveLeft(step, leaving);
      await this.#keepStayers(step, leaving);
    });
  }

  /** The last come go first. */
  async #leave(count: number): Promise<DeviceEntry[]> {
    if (!this.#options.vcpusLeave) return [];
    const plugged = this.#entries().filter(({ state }) => state === 'plugged');
    return this.#plugger.release(machineOwner, plugged.reverse().slice(0, count));
  }

  /** A guest that has kept a vCPU uses it on. What it lets go later is noticed by the next look at QEMU. */
  async #keepStayers(ctx: Context, leaving: readonly DeviceEntry[]): Promise<void> {
    if (leaving.length === 0) return;
    await this.#plugger.exclusive(ctx, async () => {
      const slots = await this.#slots(ctx);
      const stayers = leaving.filter((entry) => this.#plugger.book.entries.includes(entry));
      await this.#plugger.recall(machineOwner, stayers);
      await this.#forgetGone(slots);
    });
  }

  /** A guest may let a vCPU go when it likes. */
  async #forgetGone(slots: readonly Slot[]): Promise<void> {
    const gone = this.#entries().filter((entry) => {
      const [id = ''] = deviceIds(entry);
      return slots[entry.index]?.['qom-path']?.endsWith(`/${id}`) !== true;
    });
    for (const entry of gone) this.#plugger.book.remove(entry);
    if (gone.length > 0) await this.#plugger.save();
  }

  #leaving(): DeviceEntry[] {
    return this.#entries().filter(({ state }) => state === 'leaving');
  }

  #entries(): DeviceEntry[] {
    return this.#plugger.book.ofKind('cpu').sort((one, other) => one.index - other.index);
  }

  /** In the order of their places; QEMU lists the last one first. */
  async #slots(ctx: Context): Promise<Slot[]> {
    const listed = await this.#plugger.session.execute(ctx, 'query-hotpluggable-cpus');
    const parsed = z.array(slotSchema).safeParse(listed);
    if (!parsed.success)
      throw new HerkosError('Internal', `QEMU lists vCPUs in an unknown way: ${parsed.error.message}`);
    return parsed.data.sort((one, other) => place(one) - place(other));
  }
}

function isTaken(slot: Slot): boolean {
  return slot['qom-path'] !== undefined;
}

/** Sockets, dies, cores and threads as digits of one number; none has more than 64. */
function place({ props }: Slot): number {
  const digits = ['socket-id', 'die-id', 'core-id', 'thread-id'].map((name) => props[name] ?? 0);
  return digits.reduce((sum, digit) => sum * 256 + digit, 0);
}

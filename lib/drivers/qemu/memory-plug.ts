import { z } from 'zod';

import type { Context } from '../../base/context.js';
import { background, sleep, throwIfDone, underDeadline, withTimeout } from '../../base/context.js';
import { HerkosError, classOf } from '../../base/errors.js';
import { MIB } from '../../base/units.js';
import { deviceIds, plugMemory } from './device-commands.js';
import type { MachineSizeOptions } from './machine-size.js';
import { memoryDeviceMib, requestedMib } from './memory-device.js';
import type { Plugger } from './plugger.js';

const machineOwner = 'machine';
/** QEMU tells of a changed size at most once a second (MEMORY_DEVICE_SIZE_CHANGE), so it is asked instead. */
const lookFirstMs = 5;
const lookMaxMs = 200;
const capTimeoutMs = 5_000;

/** An item of `query-memory-devices` (QEMU qapi/machine.json). */
const deviceSchema = z.object({ type: z.string(), data: z.object({ id: z.string().optional() }).loose() });
const sizesSchema = z.object({ size: z.number(), 'requested-size': z.number() });

interface Device {
  readonly id: string;
  /** What it can give, as it was plugged. */
  readonly mibMax: number;
  readonly bytes: number;
  readonly requestedBytes: number;
}

/**
 * Memory beyond what a VM booted with: one virtio-mem device, of which the guest has a part that grows
 * and shrinks. The rest of the device is not backed, but a hostile guest can touch it: what a VM really
 * uses on the host is bounded by its host cgroup alone.
 */
export class MemoryPlug {
  readonly #plugger: Plugger;
  readonly #options: MachineSizeOptions;

  constructor(plugger: Plugger, options: MachineSizeOptions) {
    this.#plugger = plugger;
    this.#options = options;
  }

  async current(ctx: Context): Promise<number> {
    return this.#mibWith(await this.#device(ctx));
  }

  /** @throws HerkosError `ResourceExhausted` when the machine has no room for so much */
  async check(ctx: Context, memoryMib: number): Promise<void> {
    const { boot, memoryMibMax } = this.#options;
    const device = await this.#device(ctx);
    const most = boot.memoryMib + (device?.mibMax ?? memoryMibMax);
    if (memoryMib > most)
      throw new HerkosError(
        'ResourceExhausted',
        `this VM can have ${String(most)} MiB of memory, not ${String(memoryMib)}`,
        { reason: 'VM_MEMORY_EXHAUSTED' },
      );
  }

  /** Returns the MiB that the guest has when it has followed, or the timeout is over. */
  async resize(ctx: Context, memoryMib: number): Promise<number> {
    const more = requestedMib(memoryMib - this.#options.boot.memoryMib);
    const device = (await this.#device(ctx)) ?? (more === 0 ? undefined : await this.#plug(ctx));
    if (device === undefined) return this.#mibWith(undefined);
    const bytes = more * MIB;
    // What a guest was asked for and has not given back may be in use for good: only the first one waits.
    if (device.requestedBytes === bytes && device.bytes >= bytes) return this.#mibWith(device);
    try {
      await this.#request(ctx, device, bytes);
      await this.#awaitSize(ctx, bytes);
    } finally {
      if (bytes > device.bytes) await this.#cap(device, bytes);
    }
    return this.current(ctx);
  }

  async #plug(ctx: Context): Promise<Device> {
    const { memoryMibMax } = this.#options;
    const { book } = this.#plugger;
    await this.#plugger.exclusive(ctx, async () => {
      await this.#plugger.plug(ctx, book.add('memory', [String(memoryMibMax)], machineOwner), (entry) =>
        plugMemory(entry, memoryDeviceMib(memoryMibMax)),
      );
    });
    const device = await this.#device(ctx);
    if (device === undefined) throw new HerkosError('Internal', 'QEMU has lost its memory device');
    return device;
  }

  /** Until the guest has what is asked; a guest that does not care costs the unplug timeout. */
  async #awaitSize(ctx: Context, bytes: number): Promise<void> {
    const patience = withTimeout(ctx, this.#options.unplugTimeoutMs, 'the guest’s memory');
    try {
      for (let waitMs = lookFirstMs; ; waitMs = Math.min(waitMs * 2, lookMaxMs)) {
        const device = await this.#device(patience);
        if (device?.bytes === bytes) return;
        await sleep(patience, waitMs);
      }
    } catch (error) {
      throwIfDone(ctx);
      if (classOf(error) !== 'DeadlineExceeded') throw error;
    } finally {
      patience.cancel();
    }
  }

  /**
   * A guest that has not taken all by now must not take the rest behind everybody's back: its host
   * cgroup will be made for what it was seen to have.
   */
  async #cap(device: Device, bytes: number): Promise<void> {
    await underDeadline(background(), capTimeoutMs, 'settling the guest’s memory', async (ctx) => {
      const now = await this.#device(ctx);
      if (now !== undefined && now.bytes < bytes) await this.#request(ctx, device, now.bytes);
    }).catch((error: unknown) => {
      if (classOf(error) !== 'Unavailable') this.#plugger.warn('cannot settle a guest’s memory', error);
    });
  }

  async #request(ctx: Context, { id }: Device, bytes: number): Promise<void> {
    const path = `/machine/peripheral/${id}`;
    await this.#plugger.session.execute(ctx, 'qom-set', { path, property: 'requested-size', value: bytes });
  }

  #mibWith(device: Device | undefined): number {
    return this.#options.boot.memoryMib + Math.ceil((device?.bytes ?? 0) / MIB);
  }

  async #device(ctx: Context): Promise<Device | undefined> {
    const entry = this.#plugger.book.ofKind('memory').find(({ state }) => state === 'plugged');
    if (entry === undefined) return undefined;
    const [id = ''] = deviceIds(entry);
    const listed = await this.#plugger.session.execute(ctx, 'query-memory-devices');
    const found = z
      .array(deviceSchema)
      .parse(listed)
      .find(({ type, data }) => type === 'virtio-mem' && data.id === id);
    if (found === undefined) return undefined;
    const sizes = sizesSchema.parse(found.data);
    return {
      id,
      mibMax: Number(entry.keys[0]),
      bytes: sizes.size,
      requestedBytes: sizes['requested-size'],
    };
  }
}

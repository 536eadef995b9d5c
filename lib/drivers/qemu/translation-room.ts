/**
 * Without KVM a vCPU needs a region of QEMU's translation buffer to start with, and QEMU 7.2 aborts when
 * none is free (`tcg_region_initial_alloc__locked`). A guest that runs takes one region after the other;
 * only when it has taken all of them is the buffer emptied. So it is asked beforehand what is free.
 */
import type { Context } from '../../base/context.js';
import { background, underDeadline } from '../../base/context.js';
import { MIB } from '../../base/units.js';
import { isObject } from '../../wire/qmp/message.js';
import type { QmpSession } from './qmp-session.js';

const resumeTimeoutMs = 5_000;
/** Guard pages, the prologue, and what is left unused at the end of a region. */
const regionLossBytes = 16 * 1024;
const regionMibMin = 2;
const regionsPerVcpuMax = 8;

/** How a buffer of `mib` is divided for up to `vcpusMax` threads (QEMU tcg/region.c, `tcg_n_regions`). */
function regionCount(mib: number, vcpusMax: number): number {
  if (vcpusMax === 1) return 1;
  const regions = Math.floor(mib / regionMibMin);
  return regions <= vcpusMax ? vcpusMax : Math.min(regions, vcpusMax * regionsPerVcpuMax);
}

/** Regions that are surely free; 0 when QEMU's text is not understood. `text`: of `x-query-jit`. */
export function freeRegions(text: string, vcpus: number, vcpusMax: number): number {
  const [, used, capacity] = /gen code size +(\d+)\/(\d+)/.exec(text) ?? [];
  if (used === undefined || capacity === undefined) return 0;
  const regions = regionCount(Math.ceil(Number(capacity) / MIB), vcpusMax);
  const full = Math.floor(Number(used) / (Number(capacity) / regions - regionLossBytes));
  // Each vCPU has one that is not full yet.
  return Math.max(0, regions - full - vcpus);
}

/** Runs `body` with the number of free regions while the guest stands still, so that it takes none meanwhile. */
export async function whileStill<T>(
  ctx: Context,
  session: QmpSession,
  { vcpus, vcpusMax }: { readonly vcpus: number; readonly vcpusMax: number },
  body: (free: number) => Promise<T>,
): Promise<T> {
  const status = await session.execute(ctx, 'query-status');
  const runs = isObject(status) && status['running'] === true;
  try {
    // A caller who leaves now has stopped it all the same: QEMU does what it has got, in order.
    if (runs) await session.execute(ctx, 'stop');
    const jit = await session.execute(ctx, 'x-query-jit');
    const text = isObject(jit) ? jit['human-readable-text'] : undefined;
    return await body(typeof text === 'string' ? freeRegions(text, vcpus, vcpusMax) : 0);
  } finally {
    if (runs)
      await underDeadline(background(), resumeTimeoutMs, 'resuming the guest', (step) =>
        session.execute(step, 'cont'),
      );
  }
}

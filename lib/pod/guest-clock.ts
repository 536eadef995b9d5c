/**
 * Keeps a guest's clock with the host's: a guest counts time by itself, hears of no NTP, and does not notice
 * that the host's clock is set. What is wrong with it is measured here and told to the guest as a difference,
 * which does not get old on its way.
 */
import type { Context } from '../base/context.js';
import { sleep, withTimeout } from '../base/context.js';
import { messageOf } from '../base/errors.js';
import { nowUnixNano } from '../model/time.js';
import type { Guest } from './ports.js';
import type { SandboxEntry } from './registry.js';
import type { PodRoom } from './room.js';

/** Less is not worth a word to the guest. */
const wrongNanosMin = 2_000_000n;
/** From here on the guest does not wear it off but jumps, which its programs may notice. */
const jumpNanosMin = 500_000_000n;

/** Compares the clocks until the session ends; a guest that does not answer is asked again at the next time. */
export async function keepClock(
  room: PodRoom,
  entry: SandboxEntry,
  session: Context,
  guest: Guest,
): Promise<void> {
  const { clockMs, guestMs } = room.settings.deadlines;
  // Each at a time of its own: after a restart of the daemon all would be woken at once.
  while (await sleptFor(session, clockMs * (0.75 + Math.random() / 2))) {
    const ctx = withTimeout(session, guestMs, 'comparing the clocks');
    try {
      const byNanos = await setRight(ctx, guest);
      if (abs(byNanos) >= jumpNanosMin)
        room.log.warn('the clock of a guest was wrong; it is set', {
          sandbox: entry.record.id,
          milliseconds: Number(byNanos / 1_000_000n),
        });
    } catch (error) {
      if (!session.signal.aborted)
        room.log.debug('the clocks were not compared', {
          sandbox: entry.record.id,
          error: messageOf(error),
        });
    } finally {
      ctx.cancel();
    }
  }
}

/** @returns by how much the guest's clock was moved: 0 when it is as right as can be seen from here */
async function setRight(ctx: Context, guest: Guest): Promise<bigint> {
  const askedAt = BigInt(nowUnixNano());
  const guestTime = BigInt(await guest.adjustClock(ctx, 0n));
  const answeredAt = BigInt(nowUnixNano());
  // The guest has looked at its clock some time in between.
  const behind = (askedAt + answeredAt) / 2n - guestTime;
  const unsure = (answeredAt - askedAt) / 2n;
  if (abs(behind) <= unsure + wrongNanosMin) return 0n;
  await guest.adjustClock(ctx, behind);
  return behind;
}

function abs(nanos: bigint): bigint {
  return nanos < 0n ? -nanos : nanos;
}

/** @returns false when the context has ended */
async function sleptFor(ctx: Context, ms: number): Promise<boolean> {
  return sleep(ctx, ms).then(
    () => true,
    () => false,
  );
}

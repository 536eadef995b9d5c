/** Giving back what a sandbox has outside this process: its network and its VM. */
import { background, sleep } from '../base/context.js';
import { HerkosError, messageOf } from '../base/errors.js';
import type { SandboxRecord } from '../model/sandbox.js';
import type { NetworkRequest } from './ports.js';
import type { PodRoom } from './room.js';

export function networkRequestOf(record: SandboxRecord): NetworkRequest {
  return {
    sandboxId: record.id,
    metadata: record.config.metadata,
    netnsPath: record.netnsPath ?? '',
    tap: record.tap ?? '',
    portMappings: record.config.portMappings,
  };
}

/**
 * The network first, while its namespace still exists, then the VM. Both are tried even when one fails.
 * Succeeds when there is nothing. @throws one error that names what is left
 */
export async function teardown(room: PodRoom, record: SandboxRecord): Promise<void> {
  const failed: string[] = [];
  let cause: unknown;
  const attempt = async (what: string, body: () => Promise<void>): Promise<void> => {
    try {
      await body();
    } catch (error) {
      cause ??= error;
      failed.push(`${what}: ${messageOf(error)}`);
    }
  };
  if (record.networkRequested)
    await attempt('give the network back', () =>
      room.step(background(), 'giving the network back', 'networkMs', (ctx) =>
        room.parts.network.detachGone(ctx, networkRequestOf(record)),
      ),
    );
  await attempt('destroy the virtual machine', () =>
    room.step(background(), 'destroying the virtual machine', 'destroyMs', (ctx) =>
      room.parts.vms.destroyGone(ctx, record.id),
    ),
  );
  if (failed.length > 0)
    throw new HerkosError('Internal', `could not ${failed.join('; could not ')}`, { cause });
}

const retrying = new WeakMap<PodRoom, Set<string>>();

/** Tries a teardown that failed (or came too early) again in the background until it has worked. */
export function retryTeardown(room: PodRoom, record: SandboxRecord): void {
  const ids = retrying.get(room) ?? new Set<string>();
  retrying.set(room, ids);
  if (ids.has(record.id)) return;
  ids.add(record.id);
  void retry(room, `teardown of sandbox ${record.id}`, () => teardown(room, record)).finally(() => {
    ids.delete(record.id);
  });
}

/** Runs `body` until it does not throw, waiting longer each time; ends early when the daemon does. */
export async function retry(room: PodRoom, what: string, body: () => Promise<void>): Promise<void> {
  const { retryFirstMs, retryMaxMs } = room.settings.deadlines;
  for (let delayMs = retryFirstMs; !room.isClosed; delayMs = Math.min(delayMs * 2, retryMaxMs)) {
    try {
      await body();
      return;
    } catch (error) {
      room.log.warn('work in the background failed; trying again', { what, error: messageOf(error) });
    }
    await sleep(room.life, delayMs).catch(() => undefined);
  }
}

/** Once now, so that recovery is over when it says so; if that fails, again and again behind it. */
export async function orRetry(room: PodRoom, what: string, body: () => Promise<void>): Promise<void> {
  try {
    await body();
  } catch (error) {
    room.log.warn('recovery will try again', { what, error: messageOf(error) });
    void retry(room, what, body);
  }
}

/** A pool that is full and has come to rest, before anything is measured: asked for as herkosctl asks, and seen in /proc. */
import { readFile } from 'node:fs/promises';

import { herkos } from '#gen/admin/v1/api.js';
import { admin } from '#gen/admin/v1/services.js';

import { sleep, withTimeout } from '../../lib/base/context.js';
import type { Context } from '../../lib/base/context.js';
import { SocketClient } from '../../lib/cri/client.js';
import { run } from './interrupt.js';

type Vm = herkos.admin.v1.Vm.$Properties;

/** 25 VMs, one after the other, on a busy machine. */
const fullTimeoutMs = 180_000;
/** The list costs the daemon work, which a pool that is being filled needs itself. */
const lookEveryMs = 1_000;
/** A machine that has been stopped takes no processor time; one that still wakes up takes a lot. */
const restMs = 500;

/**
 * Resolves when `size` VMs wait in the pool and none of them runs any more. The last of them is listed while
 * it is still being made ready.
 * @throws Error that tells how far it came
 */
export async function fullPool(socketPath: string, size: number): Promise<void> {
  const client = new SocketClient(socketPath);
  const ctx = withTimeout(run, fullTimeoutMs, 'filling the pool');
  let waiting: readonly Vm[] = [];
  try {
    for (;;) {
      waiting = await inPool(ctx, client);
      if (waiting.length >= size && (await areAtRest(ctx, waiting))) return;
      await sleep(ctx, lookEveryMs);
    }
  } catch (error) {
    throw new Error(
      `the pool is not full: ${String(waiting.length)} of ${String(size)} VMs; the daemon's log tells why`,
      { cause: error },
    );
  } finally {
    ctx.cancel();
    client.close();
  }
}

async function inPool(ctx: Context, client: SocketClient): Promise<readonly Vm[]> {
  const { vms } = await client.call(ctx, admin.listVms, {});
  return vms.filter(({ role }) => role === herkos.admin.v1.Vm.Role.ROLE_POOL);
}

async function areAtRest(ctx: Context, vms: readonly Vm[]): Promise<boolean> {
  const before = await ticksOf(vms);
  await sleep(ctx, restMs);
  return before === (await ticksOf(vms));
}

/** Clock ticks that all of them have run (proc(5), stat: utime and stime); NaN, equal to nothing, without a process. */
async function ticksOf(vms: readonly Vm[]): Promise<number> {
  const each = vms.map(async ({ pid }) => {
    const stat = await readFile(`/proc/${String(pid)}/stat`, 'utf8').catch(() => '');
    // The second field is the program's name in brackets and may hold anything, brackets too.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return Number(fields[11] ?? Number.NaN) + Number(fields[12] ?? Number.NaN);
  });
  return (await Promise.all(each)).reduce((sum, ticks) => sum + ticks, 0);
}

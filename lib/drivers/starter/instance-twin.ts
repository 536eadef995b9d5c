/**
 * All that a daemon makes on a node carries its instance's name, and what carries it without a record is swept. So two
 * daemons of one name, each with a state_dir of its own, would take each other's pods for leftovers.
 */
import type { Context } from '../../base/context.js';
import { sleep } from '../../base/context.js';
import { HerkosError } from '../../base/errors.js';
import { effectiveUid, listProcesses } from '../../base/processes.js';

export const instanceOption = '--instance';

const checkMs = 200;

/**
 * Waits for the starter of another daemon of this name to end, as that of one which was stopped just now does.
 * @param ownPid of this daemon's starter
 * @throws HerkosError `FailedPrecondition`, reason INSTANCE_IN_USE, when it does not
 */
export async function refuseTwin(
  ctx: Context,
  instance: string,
  ownPid: number | undefined,
  timeoutMs = 10_000,
): Promise<void> {
  for (const end = performance.now() + timeoutMs; ;) {
    const twin = await otherStarter(instance, ownPid);
    if (twin === undefined) return;
    if (performance.now() >= end)
      throw new HerkosError(
        'FailedPrecondition',
        `another daemon is the instance ${instance}: its starter is process ${String(twin)}; stop that daemon, or configure another instance, and with it another state_dir, run_dir, socket, uid_first, bridge and subnets`,
        { reason: 'INSTANCE_IN_USE' },
      );
    await sleep(ctx, checkMs);
  }
}

/** Of root's: anybody can imitate a command line. */
async function otherStarter(instance: string, ownPid: number | undefined): Promise<number | undefined> {
  for (const { pid, args } of await listProcesses()) {
    const [, verb, option, name] = args;
    if (pid === ownPid || verb !== 'starter' || option !== instanceOption || name !== instance) continue;
    if ((await effectiveUid(pid)) === 0) return pid;
  }
  return undefined;
}

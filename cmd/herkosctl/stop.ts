import Long from 'long';

import { HerkosError } from '../../lib/base/errors.js';
import { ownLogDirectory, removeLogs } from './pod-logs.js';
import type { Session } from './session.js';
import type { Container, Pod, Target } from './targets.js';
import { allTargets, findTarget } from './targets.js';

export async function stopCommand(
  session: Session,
  targets: readonly string[],
  options: { readonly time: number },
): Promise<void> {
  await each(session, targets, 'stopped', undefined, async (target) => {
    if (target.kind === 'container') await stopContainer(session, target, options.time);
    else await stopPod(session, target, options.time);
  });
}

export async function removeCommand(
  session: Session,
  targets: readonly string[],
  options: { readonly force?: boolean },
): Promise<void> {
  await each(session, targets, 'removed', 'strict', async (target) => {
    const runs = target.kind === 'pod' ? target.ready : target.running;
    if (runs && options.force !== true)
      throw new HerkosError(
        'FailedPrecondition',
        `${target.kind} ${target.name} is running; stop it first, or use --force`,
      );
    if (target.kind === 'pod') await removePod(session, target.id);
    else await session.slow(session.rpc.removeContainer, { containerId: target.id });
  });
}

async function removePod(session: Session, podSandboxId: string): Promise<void> {
  const logs = await ownLogDirectory(session, podSandboxId);
  await session.slow(session.rpc.removePodSandbox, { podSandboxId });
  if (logs !== undefined) await removeLogs(logs);
}

/** Every container gets its grace period, all at the same time; then the machine goes. */
export async function stopPod(session: Session, pod: Pick<Pod, 'id'>, graceSeconds: number): Promise<void> {
  const { containers } = await allTargets(session);
  const running = containers.filter(({ podId, running: runs }) => podId === pod.id && runs);
  await Promise.all(running.map((container) => stopContainer(session, container, graceSeconds)));
  await session.slow(session.rpc.stopPodSandbox, { podSandboxId: pod.id });
}

async function stopContainer(session: Session, container: Container, graceSeconds: number): Promise<void> {
  const request = { containerId: container.id, timeout: Long.fromNumber(graceSeconds) };
  await session.slow(session.rpc.stopContainer, request, graceSeconds * 1000);
}

/** One after the other, so that an error names the one it is about and the rest stays as it is. */
async function each(
  session: Session,
  targets: readonly string[],
  done: string,
  strict: 'strict' | undefined,
  act: (target: Target) => Promise<void>,
): Promise<void> {
  const ids: string[] = [];
  for (const text of targets) {
    const target = await findTarget(session, text, strict);
    await act(target);
    ids.push(target.id);
    if (session.output.format === 'table') session.output.line(text);
  }
  session.output.result({ [done]: ids }, () => undefined);
}

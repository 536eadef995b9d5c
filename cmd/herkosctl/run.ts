import type { Context } from '../../lib/base/context.js';
import { background } from '../../lib/base/context.js';
import { HerkosError, messageOf } from '../../lib/base/errors.js';
import { Exit, WrongUsage, orNotRun } from './exit-codes.js';
import { LogFile } from './log-file.js';
import { followLog } from './log-follow.js';
import { LogWriter, hasEnded } from './logs.js';
import { infoOf } from './messages.js';
import { shownMs } from './output.js';
import { pullImage } from './pull.js';
import { removeLogs } from './pod-logs.js';
import type { RunOptions, RunPlan } from './run-request.js';
import { planRun } from './run-request.js';
import type { Session } from './session.js';

interface Phase {
  readonly phase: string;
  readonly ms: number;
}

interface Running {
  readonly plan: RunPlan;
  readonly podSandboxId: string;
  readonly containerId: string;
  readonly phases: readonly Phase[];
  /** Kernel and boot time of the pod's machine, as far as the daemon tells. */
  readonly guest: Readonly<Record<string, unknown>>;
  /** How the pod came by its machine; empty when the daemon does not tell. */
  readonly source: string;
}

/** A new pod with one container. Attached: shows its output and ends with its exit code. */
export async function runCommand(
  session: Session,
  image: string,
  args: readonly string[],
  options: RunOptions,
): Promise<void> {
  if (options.detach === true && options.rm === true)
    throw new WrongUsage(
      'InvalidArgument',
      "--detach and --rm: nobody waits for the end of the container then; leave one out, and use 'herkosctl rm -f' later",
    );
  const running = await orNotRun(async () => start(session, image, args, options));
  if (options.quiet !== true) report(session, running);
  if (options.detach === true) {
    session.output.result(summary(running), () => {
      session.output.line(running.podSandboxId);
    });
    return;
  }
  let exitCode: number;
  try {
    exitCode = await attach(session, running);
  } finally {
    await finish(session, running, options.rm === true);
  }
  if (session.output.format === 'json')
    session.output.result({ ...summary(running), exitCode }, () => undefined);
  throw new Exit(exitCode);
}

async function start(
  session: Session,
  image: string,
  args: readonly string[],
  options: RunOptions,
): Promise<Running> {
  const plan = planRun(image, args, options);
  const phases: Phase[] = [];
  const timed = async <T>(phase: string, body: () => Promise<T>): Promise<T> => {
    const startMs = performance.now();
    const result = await body();
    phases.push({ phase, ms: performance.now() - startMs });
    return result;
  };
  await timed('image', async () => ensureImage(session, image, options));
  const { podSandboxId } = await timed('sandbox', async () =>
    session.slow(session.rpc.runPodSandbox, { config: plan.sandbox, runtimeHandler: options.runtimeHandler }),
  );
  try {
    const info = infoOf(
      (await session.quick(session.rpc.podSandboxStatus, { podSandboxId, verbose: true })).info,
    );
    phases.push(...sandboxPhases(info));
    const { containerId } = await timed('create', async () =>
      session.slow(session.rpc.createContainer, {
        podSandboxId,
        config: plan.container,
        sandboxConfig: plan.sandbox,
      }),
    );
    await timed('start', async () => session.slow(session.rpc.startContainer, { containerId }));
    return { plan, podSandboxId, containerId, phases, guest: partOf(info, 'guest'), source: sourceOf(info) };
  } catch (error) {
    // The pod is of no use without its container.
    await removePod(session, podSandboxId, plan).catch((failed: unknown) => {
      session.output.note(`cannot remove the pod ${podSandboxId}: ${messageOf(failed)}`);
    });
    throw error;
  }
}

async function ensureImage(session: Session, image: string, options: RunOptions): Promise<void> {
  if (options.pull !== 'always') {
    const { image: found } = await session.quick(session.rpc.imageStatus, { image: { image } });
    if (found) return;
    if (options.pull === 'never')
      throw new HerkosError('NotFound', `the image ${image} is not on this node, and --pull never was given`);
  }
  await pullImage(session, image, options);
}

/** Shows the output until the container has ended. */
async function attach(session: Session, running: Running): Promise<number> {
  const { containerId, plan } = running;
  const file = new LogFile(`${plan.sandbox.logDirectory ?? ''}/${plan.container.logPath ?? ''}`);
  const writer = new LogWriter(session, false);
  for await (const line of followLog(session.ctx, file, async () => hasEnded(session, containerId)))
    await writer.write(line);
  const { status } = await session.quick(session.rpc.containerStatus, { containerId });
  if (status?.reason === 'OOMKilled') session.output.note('the container was killed: it was out of memory');
  return status?.exitCode ?? 0;
}

/** After Ctrl-C too: the machine goes, and with --rm everything of it. */
async function finish(session: Session, running: Running, remove: boolean): Promise<void> {
  if (remove) await removePod(session, running.podSandboxId, running.plan);
  else {
    const request = { podSandboxId: running.podSandboxId };
    await session.slow(session.rpc.stopPodSandbox, request, 0, background());
  }
}

async function removePod(
  session: Session,
  podSandboxId: string,
  plan: RunPlan,
  ctx: Context = background(),
): Promise<void> {
  await session.slow(session.rpc.removePodSandbox, { podSandboxId }, 0, ctx);
  await removeLogs(plan.sandbox.logDirectory ?? '');
}

/** The daemon's own measurements, named as parts of the sandbox. */
function sandboxPhases(info: Readonly<Record<string, unknown>>): Phase[] {
  const timings = Array.isArray(info['timings']) ? (info['timings'] as readonly Partial<Phase>[]) : [];
  return timings.map(({ phase, ms }) => ({ phase: `sandbox/${phase ?? '?'}`, ms: ms ?? 0 }));
}

function partOf(info: Readonly<Record<string, unknown>>, name: string): Readonly<Record<string, unknown>> {
  const part = info[name];
  return typeof part === 'object' && part !== null ? (part as Readonly<Record<string, unknown>>) : {};
}

function sourceOf(info: Readonly<Record<string, unknown>>): string {
  const { source } = partOf(info, 'vm');
  return typeof source === 'string' ? source : '';
}

function summary(running: Running): Record<string, unknown> {
  const { plan, podSandboxId, containerId, phases, guest, source } = running;
  return { pod: plan.name, podSandboxId, containerId, source, phases, guest };
}

function report(session: Session, { plan, phases, guest, source, podSandboxId }: Running): void {
  const { kernelRelease, bootMs } = guest;
  const booted = madeHow(source, bootMs);
  const kernel = typeof kernelRelease === 'string' ? `: Linux ${kernelRelease}${booted}` : '';
  session.output.note(
    `pod ${plan.name} (${podSandboxId.slice(0, 13)}) runs in its own virtual machine${kernel}`,
  );
  const parts = phases.map(({ phase, ms }) => `${phase} ${shownMs(ms)}`);
  session.output.note(`times: ${parts.join(', ')}`);
}

/** What a clone says of its boot is what its template did, long ago. */
function madeHow(source: string, bootMs: unknown): string {
  if (source === 'clone') return ', cloned from a template';
  if (source === 'pool') return ', taken from the pool';
  return typeof bootMs === 'number' ? `, booted in ${shownMs(bootMs)}` : '';
}

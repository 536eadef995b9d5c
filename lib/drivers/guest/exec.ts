/** A process beside a container's own, run to its end. */
import { agent } from '#gen/agent/v1/services.js';
import type { herkos } from '#gen/agent/v1/api.js';
import type { Context } from '../../base/context.js';
import { withTimeout } from '../../base/context.js';
import { KIB } from '../../base/units.js';
import type { GuestExec, GuestExecResult } from '../../pod/ports.js';
import { checkedNumber, misbehaved } from './check.js';
import { execEndTimeoutMs, exitCodeMax, outputChunkBytesMax } from './limits.js';
import type { AnswerStream, GuestLink } from './link.js';
import { fitting, ownId } from './messages.js';

type Got = herkos.agent.v1.ExecResponse;

const messageBytesMax = outputChunkBytesMax + KIB;

/** The first bytes of a stream; what is beyond `bytesMax` is dropped, so that the process goes on. */
class Kept {
  #buffer = Buffer.alloc(0);
  #bytes = 0;
  readonly #name: string;
  readonly #bytesMax: number;

  constructor(name: string, bytesMax: number) {
    this.#name = name;
    this.#bytesMax = bytesMax;
  }

  /** One buffer for all: a guest that sends byte by byte must not cost an object for each of them. */
  add(data: Uint8Array): void {
    if (data.length === 0 || data.length > outputChunkBytesMax)
      throw misbehaved(`sent ${String(data.length)} bytes as a chunk of ${this.#name}`);
    const part = data.subarray(0, this.#bytesMax - this.#bytes);
    this.#reserve(this.#bytes + part.length);
    this.#buffer.set(part, this.#bytes);
    this.#bytes += part.length;
  }

  take(): Buffer {
    return this.#buffer.subarray(0, this.#bytes);
  }

  /** Doubling: every byte is copied about twice in all. */
  #reserve(bytes: number): void {
    if (bytes <= this.#buffer.length) return;
    const grown = Buffer.alloc(Math.min(this.#bytesMax, Math.max(bytes, 2 * this.#buffer.length)));
    grown.set(this.#buffer.subarray(0, this.#bytes));
    this.#buffer = grown;
  }
}

/** Ends with the process; when `ctx` ends first, the guest kills the process and its children. */
export async function runExec(ctx: Context, link: GuestLink, request: GuestExec): Promise<GuestExecResult> {
  const containerId = ownId(request.containerId);
  const what = `running a process in ${containerId}`;
  const call = link.twoWay(ctx, agent.exec, what, messageBytesMax);
  call.write({ open: { containerId, ociProcess: fitting(request.ociProcess, 'process'), stdin: false } });
  call.end();
  const { outputBytesMax } = request;
  const kept = { stdout: new Kept('stdout', outputBytesMax), stderr: new Kept('stderr', outputBytesMax) };
  const answers = call[Symbol.asyncIterator]();
  const exitCode = await readUntilExit(answers, kept);
  await finish(ctx, answers);
  return { exitCode, stdout: kept.stdout.take(), stderr: kept.stderr.take() };
}

async function readUntilExit(
  answers: AsyncGenerator<Got, void, void>,
  kept: { readonly stdout: Kept; readonly stderr: Kept },
): Promise<number> {
  for (let next = await answers.next(); next.done !== true; next = await answers.next()) {
    const message = next.value;
    switch (message.response) {
      case 'stdout':
        kept.stdout.add(message.stdout ?? new Uint8Array());
        break;
      case 'stderr':
        kept.stderr.add(message.stderr ?? new Uint8Array());
        break;
      case 'exitCode':
        return checkedNumber(message.exitCode ?? 0, 'an exit code', exitCodeMax);
      case undefined:
        throw misbehaved('answered a process with an empty message');
    }
  }
  throw misbehaved('ended a process without its exit code');
}

/**
 * Lets the call end by itself: cancelling it would kill what the process left running on purpose. A guest
 * that does not end it is not waited for.
 */
async function finish(
  ctx: Context,
  answers: ReturnType<AnswerStream<Got>[typeof Symbol.asyncIterator]>,
): Promise<void> {
  const patience = withTimeout(ctx, execEndTimeoutMs, 'ending a call');
  const given = new Promise<'late'>((resolve) => {
    patience.signal.addEventListener('abort', () => {
      resolve('late');
    });
  });
  try {
    // More messages after the last one, or an error: the exit code is known, nothing else matters.
    await Promise.race([answers.next().catch(() => undefined), given]);
  } finally {
    patience.cancel();
    void answers.return().catch(() => undefined);
  }
}

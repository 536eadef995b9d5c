/** The operating system's programs behind one small interface; tests use a recording double. */
import { spawn } from 'node:child_process';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';

import type { Context } from './context.js';
import { throwIfDone } from './context.js';
import { HerkosError, isErrno } from './errors.js';

export interface ExecOptions {
  /** Written to standard input, which is then closed. */
  readonly input?: string | Uint8Array;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Bytes of each output stream that are kept; more is an error. */
  readonly outputBytesMax?: number;
  /** Exit codes that are not errors; `[0]` unless told. */
  readonly okExitCodes?: readonly number[];
}

export interface ExecResult {
  readonly exitCode: number;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
}

export interface Exec {
  /**
   * Runs a program to its end. Kills it (SIGKILL) when the context ends.
   * @throws HerkosError `Internal` with the program's standard error when it fails,
   *   `FailedPrecondition` when it is not installed, the context's reason when that ended.
   */
  run(ctx: Context, program: string, args: readonly string[], options?: ExecOptions): Promise<ExecResult>;
}

const outputBytesDefaultMax = 1024 * 1024;
const stderrShownBytesMax = 2048;

export const systemExec: Exec = {
  async run(ctx, program, args, options = {}) {
    throwIfDone(ctx);
    const child = start(program, args, options);
    const kill = (): void => {
      child.kill('SIGKILL');
    };
    const ending = ended(child, program);
    // Its streams may be missing then.
    if (child.pid === undefined) await ending;
    const limit = options.outputBytesMax ?? outputBytesDefaultMax;
    const stdout = new Collector(child.stdout, limit, kill);
    const stderr = new Collector(child.stderr, limit, kill);
    // A program that exits without reading its input is not our error.
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.input ?? '');
    ctx.signal.addEventListener('abort', kill, { once: true });
    try {
      const { code, signal } = await ending;
      throwIfDone(ctx);
      if (stdout.overflown || stderr.overflown)
        throw new HerkosError('ResourceExhausted', `${program} printed more than ${String(limit)} bytes`);
      const result = { exitCode: code ?? -1, stdout: stdout.take(), stderr: stderr.take() };
      if (!(options.okExitCodes ?? [0]).includes(result.exitCode)) {
        const how = signal === null ? `exit code ${String(code)}` : `signal ${signal}`;
        const said = result.stderr.subarray(-stderrShownBytesMax).toString('utf8').trim();
        throw new HerkosError('Internal', `${program} ${args.join(' ')} failed with ${how}: ${said}`);
      }
      return result;
    } finally {
      ctx.signal.removeEventListener('abort', kill);
    }
  },
};

function start(
  program: string,
  args: readonly string[],
  { env, cwd }: ExecOptions,
): ChildProcessWithoutNullStreams {
  return spawn(program, args, {
    stdio: 'pipe',
    ...(env === undefined ? {} : { env }),
    ...(cwd === undefined ? {} : { cwd }),
  });
}

/** Keeps what a stream brings, up to a limit. */
class Collector {
  readonly #parts: Buffer[] = [];
  #bytes = 0;
  overflown = false;

  constructor(stream: NodeJS.ReadableStream, bytesMax: number, onOverflow: () => void) {
    stream.on('data', (part: Buffer) => {
      this.#bytes += part.length;
      if (this.#bytes <= bytesMax) this.#parts.push(part);
      else {
        this.overflown = true;
        onOverflow();
      }
    });
  }

  take(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

interface End {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Resolves when the program has ended and its outputs are closed. */
async function ended(child: ChildProcessWithoutNullStreams, program: string): Promise<End> {
  return new Promise((resolve, reject) => {
    child.once('error', (error) => {
      reject(cannotRun(program, error));
    });
    child.once('close', (code, signal) => {
      resolve({ code, signal });
    });
  });
}

function cannotRun(program: string, error: Error): HerkosError {
  const said = `cannot run ${program}: ${error.message}`;
  if (['EMFILE', 'ENFILE', 'EAGAIN', 'ENOMEM'].some((code) => isErrno(error, code)))
    return new HerkosError('ResourceExhausted', `${said}; the node has too many of something open`, {
      cause: error,
    });
  return new HerkosError('FailedPrecondition', `${said}; is it installed?`, { cause: error });
}

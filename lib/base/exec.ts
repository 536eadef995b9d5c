/** The operating system's programs behind one small interface; tests use a recording double. */
import { spawn } from 'node:child_process';
import type { ChildProcessWithoutNullStreams, StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';

import type { Context } from './context.js';
import { throwIfDone } from './context.js';
import { HerkosError, isErrno } from './errors.js';
import { readStat } from './processes.js';

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

export interface LaunchOptions {
  readonly env: Readonly<Record<string, string>>;
  /** Appended with both outputs; it must be there. */
  readonly log: string;
}

export interface LaunchedProgram {
  readonly pid: number;
  /** With the pid it names the process for good (`/proc/PID/stat`); `0` when it has ended. */
  readonly startTicks: string;
  /** Undefined when nobody saw how it ended, or that it has. Never rejects. */
  readonly ended: Promise<{ readonly exitCode?: number; readonly signal?: string } | undefined>;
}

export interface Launcher {
  /**
   * Starts a program that outlives the daemon: in a session of its own, in `/`, without input.
   * @throws HerkosError `FailedPrecondition` when it cannot be started, `ResourceExhausted` when there is no room for it
   */
  launch(program: string, args: readonly string[], options: LaunchOptions): Promise<LaunchedProgram>;
}

export const outputBytesDefaultMax = 1024 * 1024;
const stderrShownBytesMax = 2048;

export const systemExec: Exec & Launcher = {
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
      const isOverflown = stdout.overflown || stderr.overflown;
      return resultOf([program, ...args], options, {
        exitCode: code ?? undefined,
        signal: signal ?? undefined,
        stdout: stdout.take(),
        stderr: stderr.take(),
        isOverflown,
      });
    } finally {
      ctx.signal.removeEventListener('abort', kill);
    }
  },

  async launch(program, args, { env, log }) {
    const file = await open(log, constants.O_WRONLY | constants.O_APPEND | constants.O_NOFOLLOW);
    try {
      const stdio: StdioOptions = ['ignore', file.fd, file.fd];
      const child = spawn(program, args, { detached: true, cwd: '/', env, stdio });
      const ended = new Promise<Awaited<LaunchedProgram['ended']>>((resolve) => {
        child.once('exit', (exitCode, signal) => {
          resolve({ ...(exitCode === null ? {} : { exitCode }), ...(signal === null ? {} : { signal }) });
        });
      });
      if (child.pid === undefined) {
        const [error] = (await once(child, 'error')) as [Error];
        throw cannotRun(program, error);
      }
      child.unref();
      // Not reaped before its exit event: its entry is there even when it has ended.
      const startTicks = (await readStat(child.pid))?.startTicks ?? '0';
      return { pid: child.pid, startTicks, ended };
    } finally {
      await file.close();
    }
  },
};

/** How a program ended, before anybody said whether that is good. */
export interface ProgramEnd {
  readonly exitCode: number | undefined;
  /** `SIGKILL` when a signal ended it. */
  readonly signal: string | undefined;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  /** It printed more than was to be kept. */
  readonly isOverflown: boolean;
}

/** What `run` makes of an end. @throws HerkosError as `run` says */
export function resultOf(
  argv: readonly string[],
  { okExitCodes = [0], outputBytesMax = outputBytesDefaultMax }: ExecOptions,
  { exitCode, signal, stdout, stderr, isOverflown }: ProgramEnd,
): ExecResult {
  if (isOverflown)
    throw new HerkosError(
      'ResourceExhausted',
      `${argv[0] ?? ''} printed more than ${String(outputBytesMax)} bytes`,
    );
  const result = { exitCode: exitCode ?? -1, stdout, stderr };
  if (okExitCodes.includes(result.exitCode)) return result;
  const how = signal === undefined ? `exit code ${String(result.exitCode)}` : `signal ${signal}`;
  const said = stderr.subarray(-stderrShownBytesMax).toString('utf8').trim();
  throw new HerkosError('Internal', `${argv.join(' ')} failed with ${how}: ${said}`);
}

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

/** @param error - with the kernel's code, as `ENOENT` */
export function cannotRun(program: string, error: Error): HerkosError {
  const said = `cannot run ${program}: ${error.message}`;
  if (['EMFILE', 'ENFILE', 'EAGAIN', 'ENOMEM'].some((code) => isErrno(error, code)))
    return new HerkosError('ResourceExhausted', `${said}; the node has too many of something open`, {
      cause: error,
    });
  return new HerkosError('FailedPrecondition', `${said}; is it installed?`, { cause: error });
}

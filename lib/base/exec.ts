/** The operating system's programs behind one small interface; tests use a recording double. */
import { spawn } from 'node:child_process';

import type { Context } from './context.js';
import { HerkosError } from './errors.js';

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
    const limit = options.outputBytesMax ?? outputBytesDefaultMax;
    const child = spawn(program, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(options.env === undefined ? {} : { env: options.env }),
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    const kill = (): void => {
      child.kill('SIGKILL');
    };
    let overflow = false;
    const collect = (stream: NodeJS.ReadableStream): Buffer[] => {
      const parts: Buffer[] = [];
      let total = 0;
      stream.on('data', (part: Buffer) => {
        total += part.length;
        if (total > limit) {
          overflow = true;
          kill();
        } else parts.push(part);
      });
      return parts;
    };
    const out = collect(child.stdout);
    const err = collect(child.stderr);
    // A program that exits without reading its input is not our error.
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.input ?? '');
    ctx.signal.addEventListener('abort', kill, { once: true });
    try {
      if (ctx.signal.aborted) kill();
      const [exitCode, signal] = await new Promise<[number | null, string | null]>((resolve, reject) => {
        child.once('error', (error) => {
          reject(
            new HerkosError(
              'FailedPrecondition',
              `cannot run ${program}: ${error.message}; is it installed?`,
              {
                cause: error,
              },
            ),
          );
        });
        child.once('close', (code, sig) => {
          resolve([code, sig]);
        });
      });
      if (ctx.signal.aborted) throw ctx.signal.reason;
      const stdout = Buffer.concat(out);
      const stderr = Buffer.concat(err);
      if (overflow)
        throw new HerkosError('ResourceExhausted', `${program} printed more than ${String(limit)} bytes`);
      const code = exitCode ?? -1;
      if (!(options.okExitCodes ?? [0]).includes(code)) {
        const how = signal === null ? `exit code ${String(code)}` : `signal ${signal}`;
        const said = stderr.subarray(-stderrShownBytesMax).toString('utf8').trim();
        throw new HerkosError('Internal', `${program} ${args.join(' ')} failed with ${how}: ${said}`);
      }
      return { exitCode: code, stdout, stderr };
    } finally {
      ctx.signal.removeEventListener('abort', kill);
    }
  },
};

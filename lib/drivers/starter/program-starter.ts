/**
 * Starts the daemon's programs by a small process beside it. fork(2) copies the page tables of whoever calls it: some
 * milliseconds of the daemon's only thread for each of the programs that a pod needs, and next to nothing there.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';

import type { Context } from '../../base/context.js';
import { background, throwIfDone } from '../../base/context.js';
import { HerkosError, messageOf, wrap } from '../../base/errors.js';
import { cannotRun, outputBytesDefaultMax, resultOf } from '../../base/exec.js';
import type {
  Exec,
  ExecOptions,
  ExecResult,
  LaunchOptions,
  LaunchedProgram,
  Launcher,
} from '../../base/exec.js';
import type { Logger } from '../../base/logger.js';
import { MIB } from '../../base/units.js';
import { ReportParser, encodeKill, encodeLaunch, encodeOrder } from '../../wire/starter/messages.js';
import type { ProgramReport } from '../../wire/starter/messages.js';
import { instanceOption } from './instance-twin.js';
import { LockWait } from './lock-wait.js';

/** Of one program's outputs together; the callers' own limits are below. */
const reportBytesMax = 256 * MIB;
const stderrShownBytesMax = 2048;
/** It has nothing to wait for. */
const endTimeoutMs = 5000;
/** What is killed, or launched, is told of at once; after so long something hangs, and after twice as long the starter. */
const reportTimeoutMs = 5000;
/** The starter of a daemon that was killed ends sooner, whatever hangs in it (cmd/herkos-host/src/starter.rs). */
const lockTimeoutMs = 10_000;
/** Starting it fails, which is an answer. */
const noProgram = '/';

export interface StarterOptions {
  /** Stands in the starter's command line, where other daemons find it (`refuseTwin`). */
  readonly instance?: string;
  /** The starter locks this file as long as it lives, so that no other daemon works on what it stands for. */
  readonly lockFile?: string;
  readonly logger?: Logger;
  /** For tests, which do not want to wait. */
  readonly reportTimeoutMs?: number;
  readonly lockTimeoutMs?: number;
}

/**
 * What is run ends with the daemon, however that ends; so do its children, in a process group with it. What is
 * launched goes on.
 */
export class ProgramStarter implements Exec, Launcher {
  readonly #hostHelper: string;
  readonly #options: StarterOptions;
  #starter: Starter | undefined;
  #isClosed = false;

  /** @param hostHelper - the program `herkos-host` */
  constructor(hostHelper: string, options: StarterOptions = {}) {
    this.#hostHelper = hostHelper;
    this.#options = options;
  }

  /** Of the starter, for tests and for people; undefined before the first program. */
  get pid(): number | undefined {
    return this.#starter?.pid;
  }

  /**
   * Waits for the lock. Should it get lost, as somebody kills the starter and another daemon is quicker, that is only
   * logged: what runs must not pay for it.
   * @throws HerkosError `FailedPrecondition` when another daemon has it
   */
  async lock(): Promise<void> {
    await this.#running().lock?.taken;
  }

  async run(
    ctx: Context,
    program: string,
    args: readonly string[],
    options: ExecOptions = {},
  ): Promise<ExecResult> {
    throwIfDone(ctx);
    const report = await this.#running().run(ctx, program, args, options);
    throwIfDone(ctx);
    if (report.kind === 'not-started') throw cannotRun(program, errorOf(report.errno));
    return resultOf([program, ...args], options, { ...report, signal: signalName(report.signal) });
  }

  async launch(program: string, args: readonly string[], options: LaunchOptions): Promise<LaunchedProgram> {
    return this.#running().launch(program, args, options);
  }

  /** Ends what still runs. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#starter?.end();
  }

  /** One that has ended, whoever ended it, has a successor: the next program does not pay for it. */
  #running(): Starter {
    if (this.#isClosed)
      throw new HerkosError('Unavailable', 'the daemon shuts down, and starts no more programs');
    if (this.#starter?.hasEnded === false) return this.#starter;
    const isFirst = this.#starter === undefined;
    const starter = new Starter(this.#hostHelper, this.#options);
    this.#starter = starter;
    if (starter.lock !== undefined) void this.#lockAgain(starter, starter.lock, isFirst);
    return starter;
  }

  /** The lock does not wait for the next program. One that never had it would not have it the next time. */
  async #lockAgain(starter: Starter, lock: LockWait, isFirst: boolean): Promise<void> {
    try {
      await lock.taken;
    } catch (error) {
      const { logger } = this.#options;
      if (!isFirst) logger?.error('the lock of the daemon is lost', { error: messageOf(error) });
      return;
    }
    await starter.closed;
    if (!this.#isClosed) this.#running();
  }
}

type Ending = Exclude<ProgramReport, { readonly kind: 'started' }>;

/** Somebody who waits for reports. */
interface Waiting {
  readonly onStarted?: (report: Extract<ProgramReport, { readonly kind: 'started' }>) => void;
  /** The last report. */
  readonly onEnding: (report: Ending) => void;
  /** There will be none. */
  readonly onLost: (error: HerkosError) => void;
}

/** One process, until its end. */
class Starter {
  /** Its streams are missing when it could not be started. */
  readonly #child: ChildProcess;
  readonly #parser = new ReportParser(reportBytesMax);
  readonly #waiting = new Map<number, Waiting>();
  /** The process is gone. */
  readonly closed: Promise<void>;
  readonly #reportTimeoutMs: number;
  readonly lock: LockWait | undefined;
  #nextId = 1;
  #words = '';
  hasEnded = false;

  constructor(hostHelper: string, options: StarterOptions) {
    const { instance, lockFile } = options;
    this.#reportTimeoutMs = options.reportTimeoutMs ?? reportTimeoutMs;
    if (lockFile !== undefined) this.lock = new LockWait(lockFile, options.lockTimeoutMs ?? lockTimeoutMs);
    const args = ['starter'];
    if (instance !== undefined) args.push(instanceOption, instance);
    if (lockFile !== undefined) args.push('--lock', lockFile);
    // A session of its own: what ends the daemon from a terminal leaves it the time to end in order.
    const child: ChildProcess = spawn(hostHelper, args, { detached: true, cwd: '/', stdio: 'pipe' });
    this.#child = child;
    child.unref();
    this.closed = new Promise((resolve) => {
      child.once('error', (error) => {
        this.#end(cannotRun(hostHelper, error));
        resolve();
      });
      child.once('close', () => {
        this.#end(new HerkosError('Internal', `the starter of programs ended: ${this.#words.trim()}`));
        resolve();
      });
    });
    child.stdin?.on('error', () => undefined);
    child.stdout?.on('data', (chunk: Buffer) => {
      this.#onData(chunk);
    });
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#words = (this.#words + chunk.toString('utf8')).slice(-stderrShownBytesMax);
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  async run(
    ctx: Context,
    program: string,
    args: readonly string[],
    { input = '', env, cwd, outputBytesMax = outputBytesDefaultMax }: ExecOptions,
  ): Promise<Ending> {
    const id = this.#nextId++;
    const kill = (): void => {
      this.#child.stdin?.write(encodeKill(id));
      this.#expect(() => !this.#waiting.has(id));
    };
    const order = { id, program, args, env, cwd, outputMax: outputBytesMax, input: Buffer.from(input) };
    this.#child.stdin?.write(encodeOrder(order));
    const report = new Promise<Ending>((resolve, reject) => {
      this.#waiting.set(id, { onEnding: resolve, onLost: reject });
    });
    ctx.signal.addEventListener('abort', kill, { once: true });
    try {
      return await report;
    } finally {
      ctx.signal.removeEventListener('abort', kill);
    }
  }

  async launch(
    program: string,
    args: readonly string[],
    { env, log }: LaunchOptions,
  ): Promise<LaunchedProgram> {
    const id = this.#nextId++;
    this.#child.stdin?.write(encodeLaunch({ id, program, args, env, log }));
    let isStarted = false;
    this.#expect(() => isStarted || !this.#waiting.has(id));
    return new Promise((resolve, reject) => {
      let onEnded: (end: Awaited<LaunchedProgram['ended']>) => void = () => undefined;
      const ended = new Promise<Awaited<LaunchedProgram['ended']>>((settle) => {
        onEnded = settle;
      });
      this.#waiting.set(id, {
        onStarted: ({ pid, startTicks }) => {
          isStarted = true;
          resolve({ pid, startTicks, ended });
        },
        onEnding: (report) => {
          if (report.kind === 'not-started') reject(cannotRun(program, errorOf(report.errno)));
          else onEnded(endOf(report));
        },
        onLost: (error) => {
          reject(error);
          onEnded(undefined);
        },
      });
    });
  }

  async end(): Promise<void> {
    this.#child.stdin?.end();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), endTimeoutMs);
    await this.closed;
    clearTimeout(timer);
  }

  /** When no report comes, the program may hang, or the starter: then others wait for it, too. */
  #expect(isReported: () => boolean): void {
    const timer = setTimeout(() => {
      if (!isReported() && !this.hasEnded) void this.#probe();
    }, this.#reportTimeoutMs);
    timer.unref();
  }

  async #probe(): Promise<void> {
    const timer = setTimeout(() => {
      this.#end(new HerkosError('Internal', 'the starter of programs did not answer and was killed'));
      this.#child.kill('SIGKILL');
    }, this.#reportTimeoutMs);
    timer.unref();
    await this.run(background(), noProgram, [], {}).catch(() => undefined);
    clearTimeout(timer);
  }

  #onData(chunk: Buffer): void {
    try {
      for (const report of this.#parser.push(chunk)) {
        if (report.kind === 'lock') {
          this.lock?.onReport(report);
          continue;
        }
        const waiting = this.#waiting.get(report.id);
        if (report.kind === 'started') waiting?.onStarted?.(report);
        else {
          this.#waiting.delete(report.id);
          waiting?.onEnding(report);
        }
      }
    } catch (error) {
      this.#end(wrap(error, 'the starter of programs'));
      this.#child.kill('SIGKILL');
    }
  }

  #end(error: HerkosError): void {
    this.hasEnded = true;
    this.lock?.fail(error);
    for (const { onLost } of this.#waiting.values()) onLost(error);
    this.#waiting.clear();
  }
}

function endOf({ exitCode, signal }: Extract<Ending, { readonly kind: 'ended' }>): {
  exitCode?: number;
  signal?: string;
} {
  const name = signalName(signal);
  return { ...(exitCode === undefined ? {} : { exitCode }), ...(name === undefined ? {} : { signal: name }) };
}

function errorOf(errno: number): Error {
  const code = getSystemErrorName(-errno);
  return Object.assign(new Error(code), { code });
}

const signalNames = new Map(Object.entries(constants.signals).map(([name, number]) => [number, name]));

function signalName(signal: number | undefined): string | undefined {
  return signal === undefined ? undefined : (signalNames.get(signal) ?? String(signal));
}

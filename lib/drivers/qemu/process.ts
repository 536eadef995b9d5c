import { open } from 'node:fs/promises';

import type { Context } from '../../base/context.js';
import { sleep, withCancel } from '../../base/context.js';
import type { LaunchedProgram } from '../../base/exec.js';
import { isAlive, killIfThere } from '../../base/processes.js';
import { KIB } from '../../base/units.js';
import type { VmExit } from '../../model/vm.js';

/** Tail of the log that becomes the last words. */
const lastWordsBytesMax = 4 * KIB;
/** The event of a process's end may not come; after the connection's end, or a kill, it is looked at this often. */
const goneCheckMs = 10;
/** The event says more than /proc does, but whoever would send it may hang. */
const eventTimeoutMs = 1_000;

/**
 * A hypervisor process of ours, started by this daemon or by the one before it. The end of one that we have launched
 * is an event; that of an adopted one shows as the end of its monitor connection.
 */
export class HypervisorProcess {
  /** Never rejects. */
  readonly exited: Promise<VmExit>;
  readonly pid: number;
  readonly startTicks: string;
  readonly #logPath: string;
  /** Settles when there will be no event of its end, or has been one. */
  readonly #unwatched: Promise<void>;
  /** What the monitor said about the end; better than nothing in the log. */
  #hint = '';
  #settle: (exit: VmExit) => void = () => undefined;
  #ended = false;
  #released = false;

  constructor(
    { pid, startTicks, ended }: Omit<LaunchedProgram, 'ended'> & Partial<LaunchedProgram>,
    logPath: string,
  ) {
    this.pid = pid;
    this.startTicks = startTicks;
    this.#logPath = logPath;
    this.exited = new Promise((resolve) => {
      this.#settle = resolve;
    });
    this.#unwatched = (ended ?? Promise.resolve(undefined)).then((end) => {
      if (end !== undefined && !this.#released) this.#onEnd(end);
    });
  }

  /** Remembers why the end may come, such as "the guest shut down". */
  hint(why: string): void {
    this.#hint = why;
  }

  /** True while the process runs, by /proc. */
  async isAlive(): Promise<boolean> {
    return !this.#ended && (await isAlive(this.pid, this.startTicks));
  }

  /** Waits for the end of a process whose connection ended, and settles `exited` then. */
  async awaitGone(ctx: Context): Promise<void> {
    const looking = withCancel(ctx);
    try {
      await Promise.race([this.exited, this.#lookUntilGone(looking)]);
    } finally {
      looking.cancel();
    }
    await this.exited;
  }

  /** SIGKILL; resolves when the process is gone. */
  async kill(ctx: Context): Promise<void> {
    if (await this.isAlive()) killIfThere(this.pid);
    await this.awaitGone(ctx);
  }

  /** Lets go: no event of this process is seen any more. */
  release(): void {
    this.#released = true;
  }

  async #lookUntilGone(ctx: Context): Promise<void> {
    while (await this.isAlive()) await sleep(ctx, goneCheckMs);
    await Promise.race([this.#unwatched, sleep(ctx, eventTimeoutMs)]);
    this.#onEnd({});
  }

  #onEnd(end: Omit<VmExit, 'lastWords'>): void {
    if (this.#ended) return;
    this.#ended = true;
    void lastWords(this.#logPath).then((words) => {
      this.#settle({ ...end, lastWords: [words, this.#hint].filter((text) => text !== '').join('\n') });
    });
  }
}

/** The end of a log file as printable text; empty when there is none. */
export async function lastWords(path: string): Promise<string> {
  try {
    const file = await open(path, 'r');
    try {
      const { size } = await file.stat();
      const length = Math.min(size, lastWordsBytesMax);
      const { buffer } = await file.read(Buffer.alloc(length), 0, length, size - length);
      return printable(buffer.toString('utf8')).trim();
    } finally {
      await file.close();
    }
  } catch {
    return '';
  }
}

/** A console's control sequences (ECMA-48) have no business in the daemon's log. */
function printable(text: string): string {
  return text.replace(/\u001b(?:\[[0-?]*[ -/]*[@-~]|[@-_a-z])/g, '').replace(/[^\P{C}\n]/gu, '');
}

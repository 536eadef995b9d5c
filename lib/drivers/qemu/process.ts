import type { ChildProcess } from 'node:child_process';
import { open } from 'node:fs/promises';

import type { Context } from '../../base/context.js';
import { abortable, sleep } from '../../base/context.js';
import { isAlive, killIfThere } from '../../base/processes.js';
import { KIB } from '../../base/units.js';
import type { VmExit } from '../../model/vm.js';

/** Tail of the log that becomes the last words. */
const lastWordsBytesMax = 4 * KIB;
/** An adopted process gives no event of its own; after the connection's end it is watched this closely. */
const goneCheckMs = 10;

/**
 * A hypervisor process of ours, started by this daemon or by the one before it. A child's end is an
 * event; an adopted process's end shows as the end of its monitor connection.
 */
export class HypervisorProcess {
  /** Never rejects. */
  readonly exited: Promise<VmExit>;
  readonly pid: number;
  readonly startTicks: string;
  readonly #logPath: string;
  readonly #child: ChildProcess | undefined;
  /** What the monitor said about the end; better than nothing in the log. */
  #hint = '';
  #settle: (exit: VmExit) => void = () => undefined;
  #ended = false;

  constructor(pid: number, startTicks: string, logPath: string, child?: ChildProcess) {
    this.pid = pid;
    this.startTicks = startTicks;
    this.#logPath = logPath;
    this.#child = child;
    this.exited = new Promise((resolve) => {
      this.#settle = resolve;
    });
    if (child === undefined) return;
    if (child.exitCode !== null || child.signalCode !== null) this.#onExit(child.exitCode, child.signalCode);
    else child.once('exit', this.#onExit);
    // The daemon may end before the VM does.
    child.unref();
  }

  /** Remembers why the end may come, such as "the guest shut down". */
  hint(why: string): void {
    this.#hint = why;
  }

  /** True while the process runs, by /proc. */
  async isAlive(): Promise<boolean> {
    return !this.#ended && (await isAlive(this.pid, this.startTicks));
  }

  /** Watches an adopted process whose connection ended until it is gone, and settles `exited` then. */
  async awaitGone(ctx: Context): Promise<void> {
    if (this.#child !== undefined) {
      await abortable(ctx, this.exited);
      return;
    }
    while (await this.isAlive()) await sleep(ctx, goneCheckMs);
    this.#onExit(null, null);
    await this.exited;
  }

  /** SIGKILL; resolves when the process is gone. */
  async kill(ctx: Context): Promise<void> {
    if (await this.isAlive()) killIfThere(this.pid);
    await this.awaitGone(ctx);
  }

  /** Lets go: no event of this process is seen any more. */
  release(): void {
    this.#child?.removeListener('exit', this.#onExit);
  }

  readonly #onExit = (exitCode: number | null, signal: string | null): void => {
    if (this.#ended) return;
    this.#ended = true;
    void lastWords(this.#logPath).then((words) => {
      this.#settle({
        ...(exitCode === null ? {} : { exitCode }),
        ...(signal === null ? {} : { signal }),
        lastWords: [words, this.#hint].filter((text) => text !== '').join('\n'),
      });
    });
  };
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

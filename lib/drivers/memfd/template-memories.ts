/**
 * Memory of templates as files without a name (memfd_create(2)): each is held by a process of its own,
 * `herkos-host memory`, which outlives the daemon. Once sealed, nobody can change it, neither a clone's
 * hypervisor, which has it open for writing (QEMU 7.2 does not map it otherwise), nor root.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { readlink, stat } from 'node:fs/promises';
import { createInterface } from 'node:readline';

import type { Context } from '../../base/context.js';
import { abortable, underDeadline } from '../../base/context.js';
import { HerkosError, messageOf } from '../../base/errors.js';
import { endProcess, isAlive, listProcesses, readStat } from '../../base/processes.js';
import type { HeldMemory, TemplateMemories, UnsealedMemory } from '../../vm/ports.js';

export interface TemplateMemorySettings {
  readonly instance: string;
  /** The program `herkos-host`. */
  readonly hostHelper: string;
}

const idPattern = /^[0-9a-f]{16}$/;
/** Programs that start and answer at once. */
const answerTimeoutMs = 10_000;
const killTimeoutMs = 10_000;
const stderrShownBytesMax = 2048;

export class SealedTemplateMemories implements TemplateMemories {
  readonly #settings: TemplateMemorySettings;

  constructor(settings: TemplateMemorySettings) {
    this.#settings = settings;
  }

  async make(ctx: Context, id: string, bytes: number, gid: number): Promise<UnsealedMemory> {
    if (!idPattern.test(id)) throw new HerkosError('InvalidArgument', `'${id}' is not a template's id`);
    const args = ['--name', this.#nameOf(id), '--bytes', String(bytes), '--owner', String(gid)];
    const holder = new Holder(this.#settings.hostHelper, ['memory', ...args]);
    try {
      return await underDeadline(ctx, answerTimeoutMs, 'making a template’s memory', async (step) => {
        const said = await holder.answer(step);
        if (said !== 'memory')
          throw new HerkosError('Internal', `${this.#settings.hostHelper} gave no memory: '${said}'`);
        const path = pathOf(holder.pid);
        const { ino } = await stat(path);
        const startTicks = (await readStat(holder.pid))?.startTicks ?? '';
        return {
          memory: { path, pid: holder.pid, startTicks, inode: ino, bytes },
          seal: (sealCtx) => seal(sealCtx, holder),
        };
      });
    } catch (error) {
      holder.end();
      throw error;
    }
  }

  async check(memory: HeldMemory): Promise<void> {
    if (!(await isAlive(memory.pid, memory.startTicks)))
      throw changed(memory, `process ${String(memory.pid)} that held it has ended`);
    const now = await stat(memory.path).catch((error: unknown) => {
      throw changed(memory, messageOf(error));
    });
    if (now.ino !== memory.inode || now.size !== memory.bytes)
      throw changed(memory, `inode and size are ${String(now.ino)} and ${String(now.size)}`);
  }

  async bytesHeld(): Promise<number> {
    const sizes = new Map((await this.#holders()).map(({ inode, bytes }) => [inode, bytes]));
    return [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0);
  }

  async list(): Promise<string[]> {
    return (await this.#holders()).map(({ id }) => id);
  }

  async removeGone(ctx: Context, id: string): Promise<void> {
    for (const holder of await this.#holders()) {
      if (holder.id !== id) continue;
      await underDeadline(ctx, killTimeoutMs, 'letting a template’s memory go', (step) =>
        endProcess(step, holder.pid, holder.startTicks),
      );
    }
  }

  #nameOf(id: string): string {
    return `herkos-memory-${this.#settings.instance}-${id}`;
  }

  /** Anyone may give a process such a name, and nobody but root such a file. One that just begins has none yet. */
  async #holders(): Promise<Holding[]> {
    const prefix = this.#nameOf('');
    const found: Holding[] = [];
    for (const { pid, args } of await listProcesses()) {
      const name = args[1] === 'memory' ? (args[args.indexOf('--name') + 1] ?? '') : '';
      const id = name.startsWith(prefix) ? name.slice(prefix.length) : '';
      if (!idPattern.test(id)) continue;
      const path = pathOf(pid);
      const target = await readlink(path).catch(() => '');
      const file = await stat(path).catch(() => undefined);
      const entry = await readStat(pid);
      if (target !== `/memfd:${name} (deleted)` || file?.uid !== 0 || entry === undefined || entry.ended)
        continue;
      found.push({ id, pid, startTicks: entry.startTicks, inode: file.ino, bytes: file.size });
    }
    return found;
  }
}

interface Holding {
  readonly id: string;
  readonly pid: number;
  readonly startTicks: string;
  readonly inode: number;
  readonly bytes: number;
}

/** `herkos-host memory` has it as its first descriptor after the standard streams. */
function pathOf(pid: number): string {
  return `/proc/${String(pid)}/fd/3`;
}

/** The process that holds the memory, while it is being filled: it ends when the daemon does. */
class Holder {
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #program: string;
  readonly #lines: AsyncIterator<string>;
  readonly #failed: Promise<never>;
  readonly #closed: Promise<unknown>;
  #words = '';

  constructor(program: string, args: readonly string[]) {
    this.#program = program;
    // A session of its own: it outlives the daemon, and a signal to the daemon's group must not reach it.
    const child = spawn(program, args, { detached: true, cwd: '/', env: {}, stdio: 'pipe' });
    this.#child = child;
    this.pid = child.pid ?? 0;
    this.#failed = new Promise((_, reject) => {
      child.once('error', (error) => {
        const why = `cannot run ${program}: ${error.message}; build it with hack/quickstart or set host_helper`;
        reject(new HerkosError('FailedPrecondition', why));
      });
    });
    this.#failed.catch(() => undefined);
    this.#closed = new Promise((resolve) => child.once('close', resolve));
    this.#lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    child.stdin.on('error', () => undefined);
    child.stderr.on('data', (part: Buffer) => {
      this.#words = (this.#words + part.toString('utf8')).slice(-stderrShownBytesMax);
    });
  }

  /** Its next line. @throws HerkosError with its own words when it ends instead */
  async answer(ctx: Context): Promise<string> {
    const next = await abortable(ctx, Promise.race([this.#lines.next(), this.#failed]));
    if (next.done !== true) return next.value;
    // Its last words may come after the end of its answers.
    await abortable(ctx, Promise.race([this.#closed, this.#failed]));
    throw new HerkosError('Internal', `${this.#program} ended: ${this.#words.trim()}`);
  }

  tell(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  /** It goes on without us. */
  release(): void {
    for (const stream of this.#child.stdio) stream?.destroy();
    this.#child.unref();
  }

  /** Of what is not sealed, the memory goes too. */
  end(): void {
    this.#child.kill('SIGKILL');
    this.release();
  }
}

async function seal(ctx: Context, holder: Holder): Promise<void> {
  await underDeadline(ctx, answerTimeoutMs, 'sealing a template’s memory', async (step) => {
    holder.tell('seal');
    const answer = await holder.answer(step);
    if (answer !== 'sealed')
      throw new HerkosError('Internal', `a template’s memory is not sealed: '${answer}'`);
  });
  holder.release();
}

function changed({ path }: HeldMemory, what: string): HerkosError {
  return new HerkosError('FailedPrecondition', `the memory ${path} is not what was built: ${what}`, {
    reason: 'TEMPLATE_CHANGED',
  });
}

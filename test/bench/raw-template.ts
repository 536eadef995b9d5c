/** A template and its clones by hand: memory in a file on a tmpfs of our own, device state in ours. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';

import type { Context } from '../../lib/base/context.js';
import { abortable, background, underDeadline } from '../../lib/base/context.js';
import { systemExec } from '../../lib/base/exec.js';
import type { QmpSession } from '../../lib/drivers/qemu/qmp-session.js';
import { run } from './interrupt.js';
import type { RawMachine } from './raw-vm.js';
import { RawVm, letRun } from './raw-vm.js';

const templateTimeoutMs = 120_000;
/** On a busy machine 50 clones take turns. */
const cloneTimeoutMs = 300_000;
/** Beside the guest's memory the file system keeps its own books. */
const tmpfsSpareMib = 16;

export class RawTemplate {
  readonly machine: RawMachine;
  readonly #directory: string;
  readonly #state: Buffer;

  private constructor(machine: RawMachine, directory: string, state: Buffer) {
    this.machine = machine;
    this.#directory = directory;
    this.#state = state;
  }

  /** Boots a machine until its agent has answered, and keeps what it is then. */
  static async make(machine: RawMachine): Promise<RawTemplate> {
    const directory = await mkdtemp('/tmp/herkos-rawtpl-');
    const sizeMib = machine.shape.memoryMib + tmpfsSpareMib;
    const mount = ['-t', 'tmpfs', '-o', `size=${String(sizeMib)}m,mode=0700`, 'herkos-bench', directory];
    try {
      await systemExec.run(run, 'mount', mount);
      const state = await underDeadline(run, templateTimeoutMs, 'making a raw template', async (ctx) =>
        savedState(ctx, machine, memoryIn(directory)),
      );
      return new RawTemplate(machine, directory, state);
    } catch (error) {
      await removeTmpfs(directory);
      throw error;
    }
  }

  get stateBytes(): number {
    return this.#state.length;
  }

  /** One clone that has answered; end it. `ms` is from starting its process to the answer. */
  async clone(): Promise<{ readonly vm: RawVm; readonly ms: number }> {
    const vm = await RawVm.spawn(this.machine, { kind: 'clone', path: memoryIn(this.#directory) });
    try {
      const ms = await underDeadline(run, cloneTimeoutMs, 'a raw clone', async (ctx) => {
        await this.#restore(ctx, vm);
        return vm.greeted(ctx);
      });
      return { vm, ms };
    } catch (error) {
      await vm.end();
      throw error;
    }
  }

  /** `count` clones at once, and what they all took: first start to last answer. */
  async cloneMany(count: number): Promise<{ readonly vms: RawVm[]; readonly ms: number }> {
    const began = performance.now();
    const tries = await Promise.allSettled(Array.from({ length: count }, async () => this.clone()));
    const ms = performance.now() - began;
    const vms = tries.flatMap((one) => (one.status === 'fulfilled' ? [one.value.vm] : []));
    const failed = tries.find((one) => one.status === 'rejected');
    if (failed === undefined) return { vms, ms };
    await Promise.all(vms.map(async (vm) => vm.end()));
    throw failed.reason;
  }

  /** Milliseconds for `count` clones at once, which are ended again. */
  async timedClones(count: number): Promise<number> {
    const { vms, ms } = await this.cloneMany(count);
    await Promise.all(vms.map(async (vm) => vm.end()));
    return ms;
  }

  async remove(): Promise<void> {
    await removeTmpfs(this.#directory);
  }

  async #restore(ctx: Context, vm: RawVm): Promise<void> {
    const monitor = await vm.monitor(ctx);
    const path = vm.path('state');
    const { settled } = await migration(ctx, monitor);
    await monitor.execute(ctx, 'migrate-incoming', { uri: `unix:${path}` });
    const socket = connect(path);
    await once(socket, 'connect');
    socket.end(this.#state);
    await settled;
    await monitor.execute(ctx, 'cont');
    monitor.destroy();
    socket.destroy();
  }
}

function memoryIn(directory: string): string {
  return join(directory, 'memory');
}

async function removeTmpfs(directory: string): Promise<void> {
  // 32: it was not mounted. What still holds it has been killed and is on its way.
  await systemExec.run(background(), 'umount', ['--lazy', directory], { okExitCodes: [0, 32] });
  await rm(directory, { recursive: true, force: true });
}

/** What QEMU sends when it migrates without the memory: the state of the processor and of all devices. */
async function savedState(ctx: Context, machine: RawMachine, path: string): Promise<Buffer> {
  const vm = await RawVm.spawn(machine, { kind: 'template', path });
  try {
    await letRun(ctx, vm);
    await vm.greeted(ctx);
    await vm.leaveAgent();
    const monitor = await vm.monitor(ctx);
    const { settled } = await migration(ctx, monitor);
    await monitor.execute(ctx, 'stop');
    const socketPath = vm.path('state');
    const received = receive(ctx, socketPath);
    await received.listening;
    await monitor.execute(ctx, 'migrate', { uri: `unix:${socketPath}` });
    await settled;
    monitor.destroy();
    return await received.bytes;
  } finally {
    await vm.end();
  }
}

/** Leaves the memory out of the next migration; `settled` tells when that has come to its end. */
async function migration(ctx: Context, monitor: QmpSession): Promise<{ readonly settled: Promise<void> }> {
  const capabilities = ['x-ignore-shared', 'events'].map((capability) => ({ capability, state: true }));
  await monitor.execute(ctx, 'migrate-set-capabilities', { capabilities });
  const settled = abortable(
    ctx,
    new Promise<void>((resolve, reject) => {
      monitor.onEvent(({ name, data }) => {
        if (name !== 'MIGRATION') return;
        if (data['status'] === 'completed') resolve();
        if (data['status'] === 'failed') reject(new Error('QEMU failed to migrate'));
      });
    }),
  );
  // Whoever waits for it hears of a failure; until somebody does, it must not end the process.
  settled.catch(() => undefined);
  return { settled };
}

function receive(ctx: Context, path: string): { listening: Promise<unknown>; bytes: Promise<Buffer> } {
  const server = createServer();
  const listening = once(server.listen(path), 'listening');
  const bytes = abortable(
    ctx,
    (async () => {
      const [socket] = (await once(server, 'connection')) as [Socket];
      const parts: Buffer[] = [];
      for await (const part of socket as AsyncIterable<Buffer>) parts.push(part);
      server.close();
      return Buffer.concat(parts);
    })(),
  );
  return { listening, bytes };
}

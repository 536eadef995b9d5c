/** A guest in memory: its containers, their output and their ends, as they outlive any connection. */
import type { Context } from '../../lib/base/context.js';
import { abortable } from '../../lib/base/context.js';
import { HerkosError } from '../../lib/base/errors.js';
import { nowUnixNano } from '../../lib/model/time.js';
import type { OciLimits } from '../../lib/pod/spec/resources.js';
import type { OciSpec } from '../../lib/wire/ocispec/types.js';
import type {
  GuestContainer,
  GuestContainerState,
  GuestExit,
  GuestOutput,
  GuestOutputChunk,
  GuestPodSetup,
  OutputStreamName,
} from '../../lib/pod/ports.js';

/** Wakes whoever waits for a change of state. */
export class Signal {
  #waiters: (() => void)[] = [];

  fire(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  async next(ctx: Context): Promise<void> {
    await abortable(
      ctx,
      new Promise<void>((resolve) => {
        this.#waiters.push(resolve);
      }),
    );
  }
}

export class FakeStream {
  data = Buffer.alloc(0);
  acknowledged = 0n;
  ended = false;
  /** Size of the chunks that readers get. */
  chunkBytes = 4096;
  readonly changed = new Signal();

  write(data: string | Buffer): void {
    this.data = Buffer.concat([this.data, Buffer.from(data)]);
    this.changed.fire();
  }

  end(): void {
    this.ended = true;
    this.changed.fire();
  }

  read(ctx: Context, fromOffset: bigint): GuestOutput {
    return {
      acknowledge: (offset) => {
        if (offset > BigInt(this.data.length)) throw new Error('acknowledged what was never sent');
        if (offset > this.acknowledged) this.acknowledged = offset;
      },
      [Symbol.asyncIterator]: () => this.#chunks(ctx, fromOffset),
    };
  }

  async *#chunks(ctx: Context, fromOffset: bigint): AsyncGenerator<GuestOutputChunk> {
    if (fromOffset > BigInt(this.data.length)) throw new HerkosError('Unknown', 'it has not printed so much');
    // What was acknowledged is forgotten, as in the real guest.
    let at = Number(fromOffset > this.acknowledged ? fromOffset : this.acknowledged);
    for (;;) {
      while (at < this.data.length) {
        await abortable(ctx, Promise.resolve());
        const data = this.data.subarray(at, at + this.chunkBytes);
        yield { offset: BigInt(at), data, end: false };
        at += data.length;
      }
      if (this.ended) {
        yield { offset: BigInt(at), data: Buffer.alloc(0), end: true };
        return;
      }
      await this.changed.next(ctx);
    }
  }
}

export class FakeContainer {
  /** Those it was created with, and what changed since. */
  limits: OciLimits;
  phase: GuestContainerState['phase'] = 'created';
  exit: GuestExit | undefined;
  readonly stdout = new FakeStream();
  readonly stderr = new FakeStream();
  readonly signals: number[] = [];
  readonly spec: OciSpec;

  constructor(
    readonly request: GuestContainer,
    readonly onExit: () => void,
  ) {
    this.spec = JSON.parse(request.ociConfig.toString()) as OciSpec;
    this.limits = this.spec.linux.resources;
  }

  /** As an OCI runtime: what is not named stays. */
  update(change: OciLimits): void {
    if (this.phase === 'exited') throw new HerkosError('FailedPrecondition', 'the container has ended');
    if (Object.keys(change).length === 0) throw new HerkosError('InvalidArgument', 'no limit is named');
    const { memory, cpu } = this.limits;
    this.limits = {
      memory: { ...memory, ...change.memory },
      cpu: { ...cpu, ...change.cpu },
      unified: { ...this.limits.unified, ...change.unified },
    };
  }

  stream(name: OutputStreamName): FakeStream {
    return name === 'stdout' ? this.stdout : this.stderr;
  }

  /** Understands `sh -c` scripts of `echo WORDS`, `exit N` and `sleep`, and nothing else runs to an end. */
  start(): void {
    this.phase = 'running';
    const [, , script = 'sleep'] = this.spec.process.args;
    for (const command of script.split(';').map((part) => part.trim())) {
      if (command.startsWith('echo ')) this.stdout.write(`${command.slice(5)}\n`);
      else if (command.startsWith('exit ')) this.end(Number(command.slice(5)));
    }
  }

  signal(signal: number): void {
    this.signals.push(signal);
    // `trap`: ends on SIGKILL only.
    const isDeaf = (this.spec.process.args[2] ?? '').includes('trap');
    if (signal === 9 || !isDeaf) this.end(128 + signal);
  }

  end(code: number, oomKilled = false): void {
    if (this.phase === 'exited') return;
    this.phase = 'exited';
    this.exit = {
      containerId: this.request.containerId,
      exitCode: code,
      oomKilled,
      finishedAt: nowUnixNano(),
    };
    this.stdout.end();
    this.stderr.end();
    this.onExit();
  }
}

export class FakeGuestState {
  setup: GuestPodSetup | undefined;
  /** What setupPod fails with. */
  refuseSetup: HerkosError | undefined;
  cpus = 1;
  /** Of the host's clock. */
  aheadNanos = 0n;
  readonly containers = new Map<string, FakeContainer>();
  readonly exits: GuestExit[] = [];
  readonly exitSeen = new Signal();
  /** Answers nothing any more, as a hung kernel does. */
  frozen = false;

  create(request: GuestContainer): void {
    if (this.containers.has(request.containerId)) throw new HerkosError('AlreadyExists', 'there is one');
    const container = new FakeContainer(request, () => {
      if (container.exit !== undefined) this.exits.push(container.exit);
      this.exitSeen.fire();
    });
    this.containers.set(request.containerId, container);
  }

  container(id: string): FakeContainer {
    const container = this.containers.get(id);
    if (container === undefined) throw new HerkosError('NotFound', `the guest has no container ${id}`);
    return container;
  }

  remove(id: string): void {
    this.containers.get(id)?.end(137);
    this.containers.delete(id);
  }

  list(): GuestContainerState[] {
    return [...this.containers].map(([containerId, one]) => ({
      containerId,
      phase: one.phase,
      ...(one.exit === undefined ? {} : { exit: one.exit }),
    }));
  }

  async *watchExits(ctx: Context): AsyncGenerator<GuestExit> {
    for (let at = 0; ;) {
      for (let exit = this.exits[at]; exit !== undefined; exit = this.exits[at]) {
        at += 1;
        yield exit;
      }
      await this.exitSeen.next(ctx);
    }
  }
}

/**
 * Containers of the fake agent. What a container runs is one of `guestPrograms`; the fake knows them by
 * the name that follows the shell's script, and the real agent just runs them.
 */
import { status } from '@grpc/grpc-js';
import Long from 'long';

import { herkos } from '#gen/agent/v1/api.js';

export class Refusal extends Error {
  readonly code: status;

  constructor(code: status, message: string) {
    super(message);
    this.code = code;
  }
}

/** Command lines for containers and processes in them; `$0` is the name the fake goes by. */
export const guestPrograms = {
  /** Prints both texts and exits. */
  print: (stdout: string, stderr: string, exitCode: number): string[] =>
    shell('printf %s "$1"; printf %s "$2" >&2; exit "$3"', 'print', stdout, stderr, String(exitCode)),
  /** Prints `bytes` zeros and exits with 0. */
  flood: (bytes: number): string[] => shell('head -c "$1" /dev/zero', 'flood', String(bytes)),
  /** Prints its own oom_score_adj, which its children have too. */
  oomScore: (): string[] => shell('cat /proc/self/oom_score_adj', 'oom'),
  /** Exits with `exitCode` when it is asked to terminate. */
  waitForTerm: (exitCode: number): string[] =>
    shell(
      'trap \'exit "$1"\' TERM; echo ready; while :; do sleep 1 & wait $!; done',
      'term',
      String(exitCode),
    ),
} as const;

function shell(script: string, name: string, ...parameters: string[]): string[] {
  return ['/bin/sh', '-c', script, name, ...parameters];
}

interface ProcessResult {
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  /** Undefined: it goes on until a signal. */
  readonly exitCode: number | undefined;
  /** Of a process that goes on. */
  readonly onTerm: number;
}

/** As much of an OCI process object as the fake understands. */
interface ProcessObject {
  readonly args: readonly string[];
  readonly oomScoreAdj?: number;
}

/** What a program does, without a shell. */
function run(process: ProcessObject): ProcessResult {
  const [, , , name, first = '', second = '', third = '0'] = process.args;
  const none = Buffer.alloc(0);
  switch (name) {
    case 'print':
      return { stdout: Buffer.from(first), stderr: Buffer.from(second), exitCode: Number(third), onTerm: 0 };
    case 'flood':
      return { stdout: Buffer.alloc(Number(first), '\0'), stderr: none, exitCode: 0, onTerm: 0 };
    case 'oom': {
      const stdout = Buffer.from(`${String(process.oomScoreAdj ?? 0)}\n`);
      return { stdout, stderr: none, exitCode: 0, onTerm: 0 };
    }
    case 'term':
      return { stdout: Buffer.from('ready\n'), stderr: none, exitCode: undefined, onTerm: Number(first) };
    default:
      throw new Refusal(status.INVALID_ARGUMENT, 'the fake agent does not know this program');
  }
}

interface Chunk {
  readonly offset: Long;
  readonly data: Buffer;
  readonly end: boolean;
}

const chunkBytes = 16 * 1024;
const keptBytesMax = 64 * 1024;

/** Everything a container printed, handed out as far as the reader keeps up. */
export class FakeOutput {
  #data = Buffer.alloc(0);
  #ended = false;
  #acknowledged = 0;
  #reader: { position: number; tell: (chunk: Chunk) => void } | undefined;

  add(data: Buffer): void {
    this.#data = Buffer.concat([this.#data, data]);
    this.#pump();
  }

  end(): void {
    this.#ended = true;
    this.#pump();
  }

  acknowledge(offset: number): void {
    this.#acknowledged = Math.max(this.#acknowledged, offset);
    this.#pump();
  }

  read(position: number, tell: (chunk: Chunk) => void): () => void {
    if (position > this.#data.length) throw new Refusal(status.OUT_OF_RANGE, 'it has not printed so much');
    const reader = { position: Math.max(position, this.#acknowledged), tell };
    this.#reader = reader;
    this.#pump();
    return () => {
      if (this.#reader === reader) this.#reader = undefined;
    };
  }

  /** Not further than `keptBytesMax` beyond what was acknowledged: the real agent keeps no more. */
  #pump(): void {
    const reader = this.#reader;
    if (reader === undefined) return;
    const limit = Math.min(this.#data.length, this.#acknowledged + keptBytesMax);
    while (reader.position < limit) {
      const data = this.#data.subarray(reader.position, Math.min(limit, reader.position + chunkBytes));
      reader.tell({ offset: Long.fromNumber(reader.position, true), data, end: false });
      reader.position += data.length;
    }
    if (!this.#ended || reader.position < this.#data.length) return;
    this.#reader = undefined;
    reader.tell({ offset: Long.fromNumber(reader.position, true), data: Buffer.alloc(0), end: true });
  }
}

class FakeContainer {
  readonly #process: ProcessObject;
  readonly #onExit: (exitCode: number) => void;
  readonly #outputs = { stdout: new FakeOutput(), stderr: new FakeOutput() };
  phase: 'created' | 'running' | 'exited' = 'created';
  exitCode = 0;
  /** As far as they were changed. */
  resources: Readonly<Record<string, unknown>> = {};
  #onTerm = 0;

  constructor(process: ProcessObject, onExit: (exitCode: number) => void) {
    this.#process = process;
    this.#onExit = onExit;
  }

  output(stream: herkos.agent.v1.OutputStream | null | undefined): FakeOutput {
    return stream === herkos.agent.v1.OutputStream.OUTPUT_STREAM_STDERR
      ? this.#outputs.stderr
      : this.#outputs.stdout;
  }

  start(): void {
    if (this.phase !== 'created') throw new Refusal(status.FAILED_PRECONDITION, 'it was started before');
    this.phase = 'running';
    const result = run(this.#process);
    this.#outputs.stdout.add(result.stdout);
    this.#outputs.stderr.add(result.stderr);
    this.#onTerm = result.onTerm;
    if (result.exitCode !== undefined) this.exit(result.exitCode);
  }

  signal(signal: number): void {
    if (this.phase !== 'running') throw new Refusal(status.FAILED_PRECONDITION, 'it does not run');
    if (signal === 9) this.exit(128 + signal);
    else if (signal === 15) this.exit(this.#onTerm);
  }

  update(ociResources: Uint8Array): void {
    const resources: unknown = JSON.parse(Buffer.from(ociResources).toString());
    if (typeof resources !== 'object' || resources === null || Array.isArray(resources))
      throw new Refusal(status.INVALID_ARGUMENT, 'these are no resources');
    if (this.phase === 'exited') throw new Refusal(status.FAILED_PRECONDITION, 'it has ended');
    this.resources = { ...this.resources, ...resources };
  }

  exec(ociProcess: Uint8Array | null | undefined): ProcessResult & { readonly cancelled: () => void } {
    if (this.phase !== 'running') throw new Refusal(status.FAILED_PRECONDITION, 'it does not run');
    const process = JSON.parse(Buffer.from(ociProcess ?? []).toString()) as ProcessObject;
    return { ...run(process), cancelled: () => undefined };
  }

  exit(exitCode: number): void {
    if (this.phase === 'exited') return;
    this.phase = 'exited';
    this.exitCode = exitCode;
    this.#outputs.stdout.end();
    this.#outputs.stderr.end();
    this.#onExit(exitCode);
  }
}

type ExitMessage = herkos.agent.v1.ContainerExit.$Properties;

export class FakeContainers {
  readonly #containers = new Map<string, FakeContainer>();
  readonly #exits = new Map<string, ExitMessage>();
  readonly #listeners = new Set<(exit: ExitMessage) => void>();

  create(containerId: string, ociConfig: Uint8Array): void {
    if (this.#containers.has(containerId)) throw new Refusal(status.ALREADY_EXISTS, 'there is one already');
    const { process } = JSON.parse(Buffer.from(ociConfig).toString()) as { process: ProcessObject };
    const container = new FakeContainer(process, (exitCode) => {
      const finishedAtUnixNano = Long.fromNumber(Date.now()).multiply(1_000_000);
      const exit = { containerId, exitCode, oomKilled: false, finishedAtUnixNano };
      this.#exits.set(containerId, exit);
      for (const tell of this.#listeners) tell(exit);
    });
    this.#containers.set(containerId, container);
  }

  get(containerId: string): FakeContainer {
    const container = this.#containers.get(containerId);
    if (container === undefined) throw new Refusal(status.NOT_FOUND, 'there is no such container');
    return container;
  }

  remove(containerId: string): void {
    this.#containers.get(containerId)?.exit(137);
    this.#containers.delete(containerId);
    this.#exits.delete(containerId);
  }

  killAll(): void {
    for (const container of this.#containers.values()) container.exit(137);
  }

  states(): herkos.agent.v1.ContainerState.$Properties[] {
    const phases = { created: 1, running: 2, exited: 3 } as const;
    return [...this.#containers].map(([containerId, { phase }]) => ({
      containerId,
      phase: phases[phase],
      exit: this.#exits.get(containerId) ?? null,
    }));
  }

  /** Past ends first, then those that happen. */
  onExit(tell: (exit: ExitMessage) => void): () => void {
    for (const exit of this.#exits.values()) tell(exit);
    this.#listeners.add(tell);
    return () => this.#listeners.delete(tell);
  }
}

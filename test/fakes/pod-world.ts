/**
 * The world around the pod room, in memory: VMs, networks, images, records. It outlives the daemons that
 * work on it; each daemon gets its own `incarnation`, which can be killed between any two calls, after
 * which nothing of it does anything any more.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';

import type { Context } from '../../lib/base/context.js';
import { abortable } from '../../lib/base/context.js';
import { HerkosError } from '../../lib/base/errors.js';
import { silentLogger } from '../../lib/base/logger.js';
import type { Logger } from '../../lib/base/logger.js';
import type { ContainerRecord } from '../../lib/model/container.js';
import type { ImageRecord } from '../../lib/model/image.js';
import type { SandboxRecord } from '../../lib/model/sandbox.js';
import type { VmExit, VmShape, VmSource } from '../../lib/model/vm.js';
import { PodService } from '../../lib/pod/pods.js';
import type { GuestExecResult } from '../../lib/pod/ports.js';
import type { PodDeadlines } from '../../lib/pod/settings.js';
import { defaultDeadlines } from '../../lib/pod/settings.js';
import type { SizingSettings } from '../../lib/vm/settings.js';
import { FakeGuestState } from './pod-guest.js';
import { testImage } from './pod-configs.js';
import { FakeObserver } from './observer.js';
import { FakePorts } from './pod-fake-ports.js';

/** Short enough for tests of what takes too long, long enough for a busy machine to do what does not. */
export const testDeadlines: PodDeadlines = {
  ...defaultDeadlines,
  sizeAgainMs: 10,
  retryFirstMs: 5,
  retryMaxMs: 20,
};

export const testSizing: SizingSettings = {
  vcpusDefault: 1,
  memoryMibDefault: 256,
  guestOverheadMib: 96,
  vcpusMax: 8,
  memoryMibMax: 4096,
};

export type FailureKind =
  /** Fails, nothing is done. */
  | 'before'
  /** Is done, and fails nevertheless. */
  | 'after'
  /** Does nothing until its context ends. */
  | 'hang'
  /** Does nothing, and does not stop when its context ends either. */
  | 'stuck';

export class FakeVm {
  readonly plugged = new Map<string, string[]>();
  readonly guest = new FakeGuestState();
  /** Devices of containers that it has places for. */
  placesMax = Number.POSITIVE_INFINITY;
  readonly nics: string[] = [];
  /** Of a card that was plugged ahead. */
  spareMac: string | undefined;
  readonly exited: Promise<VmExit>;
  /** What it booted with: as a template has it, whatever was asked for. */
  readonly shape: VmShape = { vcpus: 1, memoryMib: 256 };
  /** What it was last resized to. */
  size: VmShape = this.shape;
  /** Memory that the guest does not give back. */
  keepsMib = 0;
  /** More than this the guest does not take. */
  takesMib = Number.POSITIVE_INFINITY;
  /** Memory that its programs have taken. */
  usesMib = 0;
  isAlive = true;
  readonly connections = new Set<() => void>();
  /** Its guest runs; before that it answers nobody. */
  readonly resumed: Promise<void>;
  resume: () => void = () => undefined;
  #resolveExited: (exit: VmExit) => void = () => undefined;

  constructor(
    readonly id: string,
    readonly source: VmSource = 'cold',
  ) {
    this.exited = new Promise((resolve) => {
      this.#resolveExited = resolve;
    });
    this.resumed = new Promise((resolve) => {
      this.resume = resolve;
    });
  }

  /** @returns what the guest has then */
  resize(size: VmShape): VmShape {
    this.size = {
      vcpus: Math.max(this.shape.vcpus, size.vcpus),
      memoryMib: Math.max(this.shape.memoryMib, size.memoryMib),
    };
    this.guest.cpus = Math.min(this.guest.cpus, this.size.vcpus);
    return this.taken;
  }

  /** What the guest has. */
  get taken(): VmShape {
    const memoryMib = Math.min(Math.max(this.size.memoryMib, this.keepsMib), this.takesMib);
    return { ...this.size, memoryMib };
  }

  die(lastWords = ''): void {
    this.isAlive = false;
    this.dropConnections();
    this.#resolveExited({ signal: 'SIGKILL', lastWords });
  }

  dropConnections(): void {
    for (const drop of [...this.connections]) drop();
  }
}

export class FakeWorld {
  readonly sandboxes = new Map<string, SandboxRecord>();
  readonly containers = new Map<string, ContainerRecord>();
  readonly vms = new Map<string, FakeVm>();
  readonly networks = new Set<string>();
  /** Where new VMs come from, and what is wrong with those that were not booted. */
  vmSource: VmSource = 'cold';
  spoilClone: (vm: FakeVm) => void = () => undefined;
  readonly observer = new FakeObserver();
  readonly holds = new Map<string, string>();
  readonly images = new Map<string, ImageRecord>([['busybox', testImage]]);
  readonly imageFiles = new Map<string, string>();
  execResult: GuestExecResult = { exitCode: 0, stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) };
  readonly execs: { readonly containerId: string; readonly process: unknown }[] = [];
  /** Changes one of these to provoke what takes too long. */
  deadlines: PodDeadlines = testDeadlines;
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async create(): Promise<FakeWorld> {
    return new FakeWorld(await mkdtemp(join(tmpdir(), 'herkos-pods-')));
  }

  async remove(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }

  get logDirectory(): string {
    return join(this.directory, 'logs');
  }

  get stateDirectory(): string {
    return join(this.directory, 'state');
  }

  vm(sandboxId: string): FakeVm {
    const vm = this.vms.get(sandboxId);
    if (vm === undefined) throw new Error(`there is no VM ${sandboxId}`);
    return vm;
  }

  /** A daemon that has not begun yet. */
  incarnation(log: Logger = silentLogger): Incarnation {
    return new Incarnation(this, log);
  }

  /** A daemon on this world, its records read and everything recovered. */
  async daemon(log: Logger = silentLogger): Promise<Incarnation> {
    const incarnation = this.incarnation(log);
    await incarnation.pods.load();
    await incarnation.pods.recover();
    return incarnation;
  }
}

/** One daemon's life on the world. */
export class Incarnation {
  readonly pods: PodService;
  /** Names of all calls, in order. */
  readonly calls: string[] = [];
  readonly #failures: { readonly call: string; readonly kind: FailureKind; skip: number }[] = [];
  #isAlive = true;
  #dieAfterCall: number | undefined;
  #died: () => void = () => undefined;

  constructor(world: FakeWorld, log: Logger) {
    this.pods = new PodService(
      new FakePorts(world, (name, ctx, effect) => this.call(name, ctx, effect)).parts(log),
    );
  }

  /** The `skip`+1st call of this name from now on fails. */
  fail(call: string, kind: FailureKind = 'before', skip = 0): void {
    this.#failures.push({ call, kind, skip });
  }

  /** Failures that were asked for and have not come do not come any more. */
  healthy(): void {
    this.#failures.length = 0;
  }

  /** Dies when `count` more calls have had their effect; resolves then. */
  dieAfter(count: number): Promise<void> {
    this.#dieAfterCall = this.calls.length + count;
    return new Promise((resolve) => {
      this.#died = resolve;
    });
  }

  /** As `kill -9`: nothing that was asked for from now on happens, nothing is answered. */
  async kill(): Promise<void> {
    this.#isAlive = false;
    // What the kernel was already doing for it is done.
    await wait(10);
  }

  /** Connections of the dead daemon end, as its sockets do. */
  static closeConnections(world: FakeWorld): void {
    for (const vm of world.vms.values()) vm.dropConnections();
  }

  /** Every call from the room to the world goes through here. */
  async call<T>(name: string, ctx: Context | undefined, effect: () => T | Promise<T>): Promise<T> {
    if (!this.#isAlive) return new Promise<T>(() => undefined);
    this.calls.push(name);
    const failure = this.#takeFailure(name);
    await new Promise((resolve) => setImmediate(resolve));
    if (failure === 'stuck') return new Promise<T>(() => undefined);
    if (failure === 'hang') return abortable(ctx ?? neverEnding(), new Promise<T>(() => undefined));
    if (ctx?.signal.aborted === true) throw ctx.signal.reason;
    if (failure === 'before') throw injected(name);
    const order = this.calls.length;
    const result = await effect();
    if (this.#dieAfterCall !== undefined && order >= this.#dieAfterCall && this.isAlive()) {
      await this.kill();
      this.#died();
    }
    if (!this.isAlive()) return new Promise<T>(() => undefined);
    if (failure === 'after') throw injected(name);
    return result;
  }

  isAlive(): boolean {
    return this.#isAlive;
  }

  #takeFailure(name: string): FailureKind | undefined {
    const index = this.#failures.findIndex((one) => one.call === name);
    const failure = this.#failures[index];
    if (failure === undefined) return undefined;
    if (failure.skip > 0) {
      failure.skip -= 1;
      return undefined;
    }
    this.#failures.splice(index, 1);
    return failure.kind;
  }
}

function injected(name: string): HerkosError {
  return new HerkosError('Internal', `injected failure of ${name}`);
}

function neverEnding(): Context {
  return { signal: new AbortController().signal, deadlineMs: Number.POSITIVE_INFINITY };
}

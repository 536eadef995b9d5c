/** A hypervisor in memory: processes live in a `FakeHost`, so that a second driver can adopt them. */
import { readFile, stat, writeFile } from 'node:fs/promises';

import type { Context } from '../../lib/base/context.js';
import { throwIfDone } from '../../lib/base/context.js';
import { HerkosError, messageOf } from '../../lib/base/errors.js';
import type { LayerDevice } from '../../lib/model/image.js';
import type { Accelerator, DeviceLocator, VmExit, VmRecord, VmShape } from '../../lib/model/vm.js';
import type {
  AcceleratorVerdict,
  MachineReport,
  RunningVm,
  TemplateImage,
  VmDriver,
  VmSpec,
} from '../../lib/vm/ports.js';

/** What the fake migrates. */
const fakeState = 'state';
/** By which guests out of a template know their card. */
const fakeCardMac = '02:00:00:00:00:99';
const layerStepBytes = 2 * 1024 * 1024;

/** As on a real machine. */
const serialPortCount = 29;
const fakePortName = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

interface Device {
  readonly key: string;
  readonly kind: 'layer' | 'disk' | 'nic' | 'port' | 'memory';
  readonly port: number;
  /** Of a serial port. */
  readonly socketPath?: string;
  readonly owners: Set<string>;
}

export class FakeProcess {
  readonly devices: Device[] = [];
  readonly exited: Promise<VmExit>;
  alive = true;
  /** A guest that ignores requests keeps its devices. */
  deaf = false;
  poweredDown = false;
  /** By the address of the pod, that of the card which was plugged ahead. */
  readonly spareNics = new Map<string, string>();
  paused = false;
  size: VmShape;
  #settle: (exit: VmExit) => void = () => undefined;

  constructor(
    readonly pid: number,
    readonly record: VmRecord,
    readonly procsFiles: readonly string[],
  ) {
    this.size = record.shape;
    this.exited = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  end(signal: string): void {
    this.alive = false;
    this.#settle({ signal, lastWords: 'the fake ended' });
  }
}

/** What outlives a daemon. */
export class FakeHost {
  readonly processes = new Map<string, FakeProcess>();
  nextPid = 100_000;

  kill(pid: number): void {
    for (const process of this.processes.values()) if (process.pid === pid) process.end('SIGKILL');
  }

  /** A living process of this id. */
  living(id: string): FakeProcess | undefined {
    const process = this.processes.get(id);
    return process?.alive === true ? process : undefined;
  }
}

interface FakeLimits {
  readonly portCount: number;
  readonly vcpusMax: number;
  /** On top of what the VM booted with. */
  readonly memoryMibMax: number;
}

export interface FakeVmDriverOptions extends Partial<FakeLimits> {
  readonly host?: FakeHost;
}

export class FakeVmDriver implements VmDriver {
  readonly name = 'fake';
  readonly host: FakeHost;
  /** The next start fails with this after its process was made and taken back. */
  failStart: HerkosError | undefined;
  /** Part of every machine key: another one is another hypervisor. */
  machine = 'machine 1';
  readonly #limits: FakeLimits;

  constructor({ host = new FakeHost(), ...limits }: FakeVmDriverOptions = {}) {
    this.host = host;
    this.#limits = { portCount: 24, vcpusMax: 64, memoryMibMax: 65_536, ...limits };
  }

  probe(ctx: Context): Promise<AcceleratorVerdict> {
    throwIfDone(ctx);
    return Promise.resolve({ accelerator: 'tcg', why: 'a fake has no accelerator' });
  }

  machineKey(ctx: Context, shape: VmShape, accelerator: Accelerator, mergeable: boolean): Promise<string> {
    throwIfDone(ctx);
    return Promise.resolve(`${this.machine} ${JSON.stringify({ shape, accelerator, mergeable })}`);
  }

  async start(ctx: Context, { record, cgroup, memory, onProcess }: VmSpec): Promise<RunningVm> {
    throwIfDone(ctx);
    await Promise.resolve();
    if (memory.kind === 'clone' && (await readFile(memory.image.statePath, 'utf8')) !== fakeState)
      throw new HerkosError('Internal', 'the state is broken');
    if (this.host.processes.has(record.id))
      throw new HerkosError('AlreadyExists', `VM ${record.id} has a process already`);
    if (this.failStart !== undefined) throw this.failStart;
    const process = new FakeProcess(this.host.nextPid++, record, cgroup.procsFiles);
    process.paused = true;
    this.host.processes.set(record.id, process);
    const vm = new FakeRunningVm(process, this.#limits);
    // As real ones do.
    if (memory.kind !== 'own') vm.addSpareNic();
    try {
      await onProcess?.(vm);
    } catch (error) {
      process.end('SIGKILL');
      this.host.processes.delete(record.id);
      throw error;
    }
    return vm;
  }

  async adopt(ctx: Context, record: VmRecord): Promise<RunningVm | undefined> {
    throwIfDone(ctx);
    await Promise.resolve();
    const process = this.host.living(record.id);
    if (process === undefined || (record.pid !== 0 && record.pid !== process.pid)) return undefined;
    return new FakeRunningVm(process, this.#limits);
  }

  async destroyGone(ctx: Context, record: VmRecord): Promise<void> {
    throwIfDone(ctx);
    await Promise.resolve();
    this.host.living(record.id)?.end('SIGKILL');
    this.host.processes.delete(record.id);
  }

  list(): Promise<string[]> {
    return Promise.resolve([...this.host.processes.keys()]);
  }
}

class FakeRunningVm implements RunningVm {
  readonly pid: number;
  readonly processStartTicks: string;
  readonly agentSocketPath: string;
  readonly exited: Promise<VmExit>;
  readonly #process: FakeProcess;
  readonly #limits: FakeLimits;
  #released = false;

  constructor(process: FakeProcess, limits: FakeLimits) {
    this.#process = process;
    this.#limits = limits;
    this.pid = process.pid;
    this.processStartTicks = `1${String(process.pid)}`;
    this.agentSocketPath = `/nowhere/${process.record.id}/agent`;
    this.exited = process.exited;
  }

  async plugNic(ctx: Context, mac: string): Promise<string> {
    await this.#check(ctx);
    const { devices, spareNics } = this.#process;
    const known = spareNics.get(mac);
    if (known !== undefined) return known;
    const spare = devices.find(({ owners }) => owners.has('spare'));
    if (spare !== undefined) {
      spare.owners.delete('spare');
      spare.owners.add('pod');
      spareNics.set(mac, spare.key);
      return spare.key;
    }
    if (!devices.some(({ key }) => key === mac)) this.#add(mac, 'nic', 'pod');
    return mac;
  }

  get spareNic(): string | undefined {
    return this.#process.devices.find(({ owners }) => owners.has('spare'))?.key;
  }

  addSpareNic(): void {
    this.#add(fakeCardMac, 'nic', 'spare');
  }

  async plugLayers(ctx: Context, owner: string, layers: readonly LayerDevice[]): Promise<DeviceLocator[]> {
    await this.#check(ctx);
    for (const layer of layers) await checkFile(layer);
    return layers.map((layer) => {
      const there = this.#process.devices.find(({ key, kind }) => kind === 'layer' && key === layer.key);
      there?.owners.add(owner);
      return locator(there ?? this.#add(layer.key, 'layer', owner));
    });
  }

  async plugDisk(ctx: Context, owner: string, path: string): Promise<DeviceLocator> {
    await this.#check(ctx);
    await readFile(path).catch((error: unknown) => {
      throw new HerkosError('NotFound', messageOf(error));
    });
    const there = this.#process.devices.find(({ key }) => key === path);
    if (there?.owners.has(owner) === false)
      throw new HerkosError('FailedPrecondition', `disk ${path} is plugged already`);
    return locator(there ?? this.#add(path, 'disk', owner));
  }

  async unplugGone(ctx: Context, owner: string): Promise<void> {
    if (!this.#process.alive) return;
    await this.#check(ctx);
    const { devices, deaf } = this.#process;
    for (const device of [...devices]) {
      device.owners.delete(owner);
      // As on real hypervisors, layers stay for the next container.
      if (device.owners.size === 0 && (device.kind === 'disk' || device.kind === 'port') && !deaf)
        devices.splice(devices.indexOf(device), 1);
    }
  }

  async plugPort(ctx: Context, owner: string, name: string, socketPath: string): Promise<void> {
    if (!fakePortName.test(name) || name === 'herkos.agent.0')
      throw new HerkosError('InvalidArgument', `a port cannot be called ${name}`);
    if (!socketPath.startsWith('/') || socketPath.includes('\0') || Buffer.byteLength(socketPath) > 107)
      throw new HerkosError('InvalidArgument', `${socketPath} is no path of a socket`);
    await this.#check(ctx);
    const there = this.#process.devices.find(({ key, kind }) => kind === 'port' && key === name);
    if (there === undefined) this.#add(name, 'port', owner, socketPath);
    else if (!there.owners.has(owner) || there.socketPath !== socketPath)
      throw new HerkosError('FailedPrecondition', `port ${name} is plugged already`);
  }

  async resize(ctx: Context, size: VmShape): Promise<VmShape> {
    for (const count of [size.vcpus, size.memoryMib])
      if (!Number.isSafeInteger(count) || count < 1)
        throw new HerkosError('InvalidArgument', `no machine has ${String(count)} of anything`);
    await this.#check(ctx);
    const { record, paused, deaf, devices } = this.#process;
    const boot = record.shape;
    if (size.vcpus > this.#limits.vcpusMax || size.memoryMib > boot.memoryMib + this.#limits.memoryMibMax)
      throw new HerkosError('ResourceExhausted', 'the machine was not made for so much');
    if (size.memoryMib > boot.memoryMib && !devices.some(({ kind }) => kind === 'memory'))
      this.#add('memory', 'memory', 'machine');
    const now = this.#process.size;
    // vCPUs are plugged by the hypervisor alone; all else needs the guest.
    const follows = !paused && !deaf;
    const vcpus = Math.max(boot.vcpus, size.vcpus);
    this.#process.size = {
      vcpus: follows ? vcpus : Math.max(vcpus, now.vcpus),
      memoryMib: follows ? Math.max(boot.memoryMib, size.memoryMib) : now.memoryMib,
    };
    return this.#process.size;
  }

  async pause(ctx: Context): Promise<void> {
    await this.#check(ctx);
    this.#process.paused = true;
  }

  async resume(ctx: Context): Promise<void> {
    await this.#check(ctx);
    this.#process.paused = false;
  }

  async saveTemplate(ctx: Context, image: TemplateImage): Promise<void> {
    await this.#check(ctx);
    this.#process.paused = true;
    await writeFile(image.statePath, fakeState, { mode: 0o600 });
  }

  async powerDown(ctx: Context): Promise<void> {
    await this.#check(ctx);
    this.#process.poweredDown = true;
  }

  kill(): Promise<void> {
    if (this.#process.alive) this.#process.end('SIGKILL');
    return Promise.resolve();
  }

  release(): Promise<void> {
    this.#released = true;
    return Promise.resolve();
  }

  async describe(ctx: Context): Promise<MachineReport> {
    await this.#check(ctx);
    const { size, devices } = this.#process;
    return {
      size,
      devices: devices.map(({ kind, port, key, owners }) => ({
        kind,
        place: String(port),
        keys: [key],
        owners: [...owners],
        state: 'plugged',
      })),
    };
  }

  async #check(ctx: Context): Promise<void> {
    throwIfDone(ctx);
    await Promise.resolve();
    if (!this.#process.alive || this.#released) throw new HerkosError('Unavailable', 'the VM has ended');
  }

  #add(key: string, kind: Device['kind'], owner: string, socketPath?: string): Device {
    const isSerial = kind === 'port';
    const others = this.#process.devices.filter((device) => (device.kind === 'port') === isSerial);
    const used = new Set(others.map(({ port }) => port));
    const count = isSerial ? serialPortCount : this.#limits.portCount;
    for (let port = 0; port < count; port += 1) {
      if (used.has(port)) continue;
      const device: Device = {
        key,
        kind,
        port,
        owners: new Set([owner]),
        ...(socketPath === undefined ? {} : { socketPath }),
      };
      this.#process.devices.push(device);
      return device;
    }
    throw new HerkosError('ResourceExhausted', 'all ports of this VM are in use');
  }
}

function locator(device: Device): DeviceLocator {
  return { kind: 'pci', rootPort: `4.${String(device.port)}`, function: 0 };
}

async function checkFile(layer: LayerDevice): Promise<void> {
  const info = await stat(layer.path).catch((error: unknown) => {
    throw new HerkosError('NotFound', messageOf(error));
  });
  if (info.size === 0 || info.size % layerStepBytes !== 0 || info.size !== layer.sizeBytes)
    throw new HerkosError('FailedPrecondition', `layer ${layer.key} has a wrong size`);
}

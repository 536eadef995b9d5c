/** Every sandbox and container of this node, in memory: what lists are answered from. */
import { HerkosError } from '../base/errors.js';
import { Gate } from '../base/gate.js';
import type { ContainerRecord } from '../model/container.js';
import { containerName } from '../model/container.js';
import { hasExited, isContainerListed } from '../model/container-state.js';
import type { SandboxRecord } from '../model/sandbox.js';
import { sandboxName } from '../model/sandbox.js';
import { isSandboxListed } from '../model/sandbox-state.js';
import type { LivePod } from './live-pod.js';
import type { LogPump } from './output/log-pump.js';
import type { StopAttempt } from './stop-attempt.js';

export class SandboxEntry {
  record: SandboxRecord;
  /** The running VM and the link to its guest; undefined when there is none. */
  live: LivePod | undefined;
  readonly containers = new Set<ContainerEntry>();
  /** After a restart: opens when the VM has been taken over, or is known to be gone. */
  readonly adopted = new Gate();
  /** After a restart: opens when it is known what became of the pod; its guest may keep that back. */
  readonly recovered = new Gate();
  /** A stop or removal that is under way; later callers share it. */
  stopping: Promise<void> | undefined;
  removing: Promise<void> | undefined;
  /** Requests for containers that are under way. */
  readonly busy = new Set<Promise<unknown>>();

  /** One that is new needs no recovery. */
  constructor(record: SandboxRecord, isRestored = false) {
    this.record = record;
    if (isRestored) return;
    this.adopted.open();
    this.recovered.open();
  }
}

export class ContainerEntry {
  record: ContainerRecord;
  readonly sandbox: SandboxEntry;
  pump: LogPump | undefined;
  stop: StopAttempt | undefined;
  removing: Promise<void> | undefined;
  /** The guest said that it ended; the rest of its output is awaited. */
  ending = false;
  /** Settles when the record says `exited`. */
  readonly exited: Promise<void>;
  #resolveExited: () => void = () => undefined;

  constructor(record: ContainerRecord, sandbox: SandboxEntry) {
    this.record = record;
    this.sandbox = sandbox;
    this.exited = new Promise((resolve) => {
      this.#resolveExited = resolve;
    });
    if (hasExited(record)) this.#resolveExited();
  }

  markExited(): void {
    this.#resolveExited();
  }
}

export class Registry {
  readonly #sandboxes = new Map<string, SandboxEntry>();
  readonly #containers = new Map<string, ContainerEntry>();
  /** Reserved names to the id that has them. */
  readonly #names = new Map<string, string>();

  /** @throws AlreadyExists when another sandbox has the name */
  addSandbox(entry: SandboxEntry): void {
    this.#reserve('sandbox', sandboxName(entry.record.config.metadata), entry.record.id);
    this.#sandboxes.set(entry.record.id, entry);
  }

  /** @throws AlreadyExists when another container has the name */
  addContainer(entry: ContainerEntry): void {
    this.#reserve('container', nameOf(entry), entry.record.id);
    this.#containers.set(entry.record.id, entry);
    entry.sandbox.containers.add(entry);
  }

  /** After a restart: two records of one name cannot be helped, and both have to be looked after. */
  restoreSandbox(entry: SandboxEntry): void {
    this.#names.set(`sandbox ${sandboxName(entry.record.config.metadata)}`, entry.record.id);
    this.#sandboxes.set(entry.record.id, entry);
  }

  restoreContainer(entry: ContainerEntry): void {
    this.#names.set(`container ${nameOf(entry)}`, entry.record.id);
    this.#containers.set(entry.record.id, entry);
    entry.sandbox.containers.add(entry);
  }

  /** Forgets it; its name is free again. */
  removeSandbox(entry: SandboxEntry): void {
    this.#release('sandbox', sandboxName(entry.record.config.metadata), entry.record.id);
    this.#sandboxes.delete(entry.record.id);
  }

  removeContainer(entry: ContainerEntry): void {
    this.#release('container', nameOf(entry), entry.record.id);
    this.#containers.delete(entry.record.id);
    entry.sandbox.containers.delete(entry);
  }

  /** The name is free again though the container is not gone yet. */
  releaseContainerName(entry: ContainerEntry): void {
    this.#release('container', nameOf(entry), entry.record.id);
  }

  /** By full id or unique prefix, of those that clients may know. */
  /** @throws ID_AMBIGUOUS when it is the prefix of several */
  findSandbox(id: string): SandboxEntry | undefined {
    return find('pod sandboxes', this.#sandboxes, id, (entry) => isSandboxListed(entry.record));
  }

  /** @throws ID_AMBIGUOUS when it is the prefix of several */
  findContainer(id: string): ContainerEntry | undefined {
    return find('containers', this.#containers, id, (entry) => isContainerListed(entry.record));
  }

  /** @throws NotFound, ID_AMBIGUOUS */
  sandbox(id: string): SandboxEntry {
    const entry = this.findSandbox(id);
    if (entry === undefined) throw new HerkosError('NotFound', `there is no pod sandbox ${quote(id)}`);
    return entry;
  }

  /** @throws NotFound, ID_AMBIGUOUS */
  container(id: string): ContainerEntry {
    const entry = this.findContainer(id);
    if (entry === undefined) throw new HerkosError('NotFound', `there is no container ${quote(id)}`);
    return entry;
  }

  /** By full id, whatever its phase. */
  containerById(id: string): ContainerEntry | undefined {
    return this.#containers.get(id);
  }

  allSandboxes(): SandboxEntry[] {
    return [...this.#sandboxes.values()];
  }

  allContainers(): ContainerEntry[] {
    return [...this.#containers.values()];
  }

  #reserve(kind: string, name: string, id: string): void {
    const holder = this.#names.get(`${kind} ${name}`);
    if (holder !== undefined)
      throw new HerkosError('AlreadyExists', `the ${kind} name ${quote(name)} is reserved for ${holder}`, {
        reason: 'NAME_RESERVED',
      });
    this.#names.set(`${kind} ${name}`, id);
  }

  #release(kind: string, name: string, id: string): void {
    if (this.#names.get(`${kind} ${name}`) === id) this.#names.delete(`${kind} ${name}`);
  }
}

function nameOf(entry: ContainerEntry): string {
  return containerName(entry.record.config.metadata, entry.sandbox.record.config.metadata);
}

/** A full id is found at once; a prefix counts when it fits only one. */
function find<T>(
  kind: string,
  map: ReadonlyMap<string, T>,
  id: string,
  isKnown: (entry: T) => boolean,
): T | undefined {
  const exact = map.get(id);
  if (exact !== undefined) return isKnown(exact) ? exact : undefined;
  if (id === '') return undefined;
  const fitting = [...map].filter(([key, entry]) => key.startsWith(id) && isKnown(entry));
  // To take it for an unknown one would tell who stops or removes it that it is done.
  if (fitting.length > 1)
    throw new HerkosError(
      'InvalidArgument',
      `${quote(id)} begins the ids of ${String(fitting.length)} ${kind}; write more of the id`,
      { reason: 'ID_AMBIGUOUS' },
    );
  return fitting[0]?.[1];
}

function quote(text: string): string {
  return `"${text.slice(0, 256)}"`;
}

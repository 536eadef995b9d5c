/**
 * The real daemon as a process with everything of its own: instance name, directories, socket, bridge,
 * subnet, uids. Nothing of it meets another run on the same machine, alive or crashed.
 */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';

import { daemonNodeFlags } from '../../cmd/herkosd/node-flags.js';
import { background } from '../../lib/base/context.js';
import { systemExec } from '../../lib/base/exec.js';
import { CriClient } from './cri-client.js';
import { endWithUs } from './end-with-us.js';
import { findLeftovers, sweepLeftovers } from './leftovers.js';
import { SmallDisk } from './small-disk.js';

const readyTimeoutMs = 60_000;
const stopTimeoutMs = 40_000;
/**
 * Proving an accelerator takes a boot, which every daemon of its own would do again; HERKOS_TEST_ACCEL=kvm
 * runs the tests and benchmarks with hardware acceleration where there is one.
 */
export const testAccelerator = process.env['HERKOS_TEST_ACCEL'] === 'kvm' ? 'kvm' : 'tcg';
const daemonMain = new URL('../../cmd/herkosd/main.js', import.meta.url).pathname;

export interface HerkosdOptions {
  /** Lines for sections of the configuration, such as `{ vm: 'layer_device = "nvdimm"' }`. */
  readonly config?: Readonly<Record<string, string>>;
  readonly accel?: 'auto' | 'kvm' | 'tcg';
  /** Benchmarks measure what the default does; a test that fails wants to tell more. */
  readonly logLevel?: 'debug' | 'info';
  /** Somebody else's, to try what happens. */
  readonly socket?: string;
  readonly stateDirectory?: string;
  readonly instance?: string;
  /** Compiled program to run instead of the daemon's own main; gets the same arguments. */
  readonly program?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** State and logs share a disk of this size, which a test can fill. */
  readonly diskMib?: number;
}

/** Daemons that were not cleaned up yet, for the report of a test that fails. */
export const runningDaemons = new Set<HerkosdProcess>();
/** Last words of daemons that were cleaned up since the last test ended. */
export const finishedLogs = new Map<string, string>();

export class HerkosdProcess {
  readonly instance: string;
  /** Everything of this daemon on disk. */
  readonly directory: string;
  readonly #options: HerkosdOptions;
  #disk: SmallDisk | undefined;
  #child: ChildProcess | undefined;
  #client: CriClient | undefined;

  private constructor(instance: string, directory: string, options: HerkosdOptions) {
    this.instance = instance;
    this.directory = directory;
    this.#options = options;
    runningDaemons.add(this);
  }

  /** Writes the configuration and starts the daemon; resolves when it answers. */
  static async start(options: HerkosdOptions = {}): Promise<HerkosdProcess> {
    const made = await HerkosdProcess.prepare(options);
    try {
      await made.restart();
    } catch (error) {
      await made.cleanUp();
      throw error;
    }
    return made;
  }

  /** Writes the configuration only. */
  static async prepare(options: HerkosdOptions = {}): Promise<HerkosdProcess> {
    const instance = options.instance ?? `t${randomBytes(4).toString('hex')}`;
    // Short: unix socket paths have 107 bytes.
    const directory = await mkdtemp('/tmp/herkos-');
    // VMs run as users of their own and reach their files through it.
    await chmod(directory, 0o711);
    const daemon = new HerkosdProcess(instance, directory, options);
    if (options.diskMib !== undefined)
      daemon.#disk = await SmallDisk.mount(directory, ['state', 'logs'], options.diskMib);
    await mkdir(join(directory, 'registries.d'));
    await writeFile(daemon.configPath, configText(instance, directory, options));
    return daemon;
  }

  get configPath(): string {
    return join(this.directory, 'herkosd.toml');
  }

  get socketPath(): string {
    return join(this.directory, 'herkos.sock');
  }

  get logPath(): string {
    return join(this.directory, 'herkosd.log');
  }

  get client(): CriClient {
    if (this.#client === undefined) throw new Error('the daemon was never started');
    return this.#client;
  }

  /** What `diskMib` made. */
  get disk(): SmallDisk {
    if (this.#disk === undefined) throw new Error('the daemon has no disk of its own');
    return this.#disk;
  }

  /** Undefined while it does not run. */
  get pid(): number | undefined {
    return this.#child?.exitCode === null && this.#child.signalCode === null ? this.#child.pid : undefined;
  }

  /** Starts the daemon (again) on the same directories; resolves when it answers. */
  async restart(env: Readonly<Record<string, string>> = {}): Promise<void> {
    this.spawn(env);
    await this.client.runtime('version', {}, { timeoutMs: readyTimeoutMs }).catch(async (error: unknown) => {
      throw new Error(`the daemon does not answer: ${String(error)}\n${await this.log()}`);
    });
  }

  /** Starts the daemon without waiting for an answer. */
  spawn(env: Readonly<Record<string, string>> = {}): void {
    const child = spawn(
      process.execPath,
      [...daemonNodeFlags, this.#options.program ?? daemonMain, '--config', this.configPath],
      { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ...this.#options.env, ...env } },
    );
    child.stderr.pipe(createWriteStream(this.logPath, { flags: 'a' }));
    endWithUs(child);
    this.#child = child;
    this.#client?.close();
    this.#client = new CriClient(this.socketPath);
  }

  /** Resolves when the daemon has ended, however it ended. */
  async ended(): Promise<void> {
    const child = this.#child;
    if (child === undefined || this.pid === undefined) return;
    await once(child, 'exit');
  }

  /** `kill -9`: pods go on. */
  async crash(): Promise<void> {
    this.#child?.kill('SIGKILL');
    await this.ended();
  }

  /** SIGTERM; pods go on. Fails when the daemon does not end by itself. */
  async stop(): Promise<void> {
    if (this.pid === undefined) return;
    this.#child?.kill('SIGTERM');
    const timer = setTimeout(() => this.#child?.kill('SIGKILL'), stopTimeoutMs);
    await this.ended();
    clearTimeout(timer);
    if (this.#child?.signalCode === 'SIGKILL') throw new Error('the daemon did not end on SIGTERM');
  }

  /** What the daemon has logged. */
  async log(): Promise<string> {
    return readFile(this.logPath, 'utf8').catch(() => '');
  }

  /** VMs, namespaces, cgroups, disks … of this instance that are there now. */
  async leftovers(): Promise<string[]> {
    return findLeftovers(this.instance, this.directory);
  }

  /** Removes every pod through CRI, as a client would. */
  async removeAllPods(): Promise<void> {
    const { items } = await this.client.runtime('listPodSandbox', {});
    await Promise.all(
      items.map(async ({ id }) => {
        const podSandboxId = id ?? '';
        await this.client.runtime('stopPodSandbox', { podSandboxId });
        await this.client.runtime('removePodSandbox', { podSandboxId });
      }),
    );
  }

  /** Ends the daemon and removes everything of this instance, whatever state it is in. */
  async cleanUp(): Promise<void> {
    await this.crash();
    runningDaemons.delete(this);
    finishedLogs.set(this.instance, await this.log());
    this.#client?.close();
    await this.#disk?.unmount();
    await sweepLeftovers(this.instance, this.directory);
    const bridge = bridgeName(this.instance);
    await systemExec.run(background(), 'ip', ['link', 'delete', bridge], { okExitCodes: [0, 1] });
    await rm(this.directory, { recursive: true, force: true });
  }
}

function bridgeName(instance: string): string {
  return `${instance}br`;
}

function configText(instance: string, directory: string, options: HerkosdOptions): string {
  const uidFirst = 1_000_000_000 + randomInt(100_000) * 64;
  const sections: Record<string, string[]> = {
    node: [
      `instance = "${instance}"`,
      `socket = "${options.socket ?? join(directory, 'herkos.sock')}"`,
      `state_dir = "${options.stateDirectory ?? join(directory, 'state')}"`,
      `run_dir = "${join(directory, 'run')}"`,
      `log_level = "${options.logLevel ?? 'debug'}"`,
    ],
    vm: [
      `accel = "${options.accel ?? testAccelerator}"`,
      `uid_first = ${String(uidFirst)}`,
      'uid_count = 60',
    ],
    image: [`registries_dir = "${join(directory, 'registries.d')}"`],
    network: [
      `conf_dir = "${join(directory, 'net.d')}"`,
      `default_bridge = "${bridgeName(instance)}"`,
      `default_subnets = ["10.${String(randomInt(100, 200))}.${String(randomInt(256))}.0/24"]`,
    ],
    pod: [],
    metrics: [],
  };
  for (const [name, text] of Object.entries(options.config ?? {})) sections[name]?.push(text);
  return Object.entries(sections)
    .map(([name, lines]) => [`[${name}]`, ...lines, ''].join('\n'))
    .join('\n');
}

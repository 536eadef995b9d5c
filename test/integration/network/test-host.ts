/**
 * A host of its own for one test: a network namespace in which plugins make their bridges, rules and
 * sysctls, so that the machine's own network is never touched and two tests never meet.
 */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { isIP } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import type { Context } from '../../../lib/base/context.js';
import { background, underDeadline } from '../../../lib/base/context.js';
import type { Exec, ExecOptions, ExecResult } from '../../../lib/base/exec.js';
import { systemExec } from '../../../lib/base/exec.js';
import { newId } from '../../../lib/base/ids.js';
import { CniNetwork } from '../../../lib/drivers/cni/cni-network.js';
import { CniNetnsFactory } from '../../../lib/drivers/cni/netns.js';
import type { CniSettings } from '../../../lib/drivers/cni/settings.js';
import type { GuestInterface, NetworkAttachment } from '../../../lib/model/network.js';
import type { PortMapping } from '../../../lib/model/sandbox.js';
import type { NetworkRequest } from '../../../lib/pod/ports.js';
import { MemoryLogger } from '../../fakes/cni-logger.js';
import { hostHelper } from '../../tools/host-helper.js';

export const debianBinDirs = ['/usr/lib/cni', '/opt/cni/bin'];
const stepMs = 60_000;
const peerProgram = fileURLToPath(new URL('peer.js', import.meta.url));

export class TestHost {
  readonly name = `hnt${randomBytes(5).toString('hex')}`;
  readonly path = `/run/netns/${this.name}`;
  readonly #children: ChildProcess[] = [];
  readonly #namespaces: string[] = [];
  readonly #directories: string[] = [];

  /** Runs everything inside this host. */
  readonly exec: Exec = {
    run: async (
      ctx: Context,
      program: string,
      args: readonly string[],
      options?: ExecOptions,
    ): Promise<ExecResult> =>
      systemExec.run(ctx, 'nsenter', [`--net=${this.path}`, '--', program, ...args], options),
  };

  static async create(): Promise<TestHost> {
    const host = new TestHost();
    await systemExec.run(background(), 'ip', ['netns', 'add', host.name]);
    await host.run('ip', 'link', 'set', 'lo', 'up');
    // Tests ask on IPv6 at once; duplicate detection on a fresh bridge takes up to two seconds.
    await host.run('sysctl', '-q', '-w', 'net.ipv6.conf.default.accept_dad=0');
    return host;
  }

  /** Output of a program inside this host. */
  async run(program: string, ...args: readonly string[]): Promise<string> {
    return underDeadline(background(), stepMs, `${program} ${args.join(' ')}`, async (ctx) =>
      (await this.exec.run(ctx, program, args)).stdout.toString('utf8'),
    );
  }

  /** Output of a program inside a namespace, such as a guest's. */
  async runIn(netnsPath: string, program: string, ...args: readonly string[]): Promise<string> {
    return this.run('nsenter', `--net=${netnsPath}`, '--', program, ...args);
  }

  async addNamespace(name = `${this.name}q${randomBytes(4).toString('hex')}`): Promise<string> {
    await this.run('ip', 'netns', 'add', name);
    this.#namespaces.push(name);
    return `/run/netns/${name}`;
  }

  async directory(): Promise<string> {
    const path = await mkdtemp(join(tmpdir(), 'herkos-network-'));
    this.#directories.push(path);
    return path;
  }

  /** Resolves when the server listens. */
  async serve(
    netnsPath: string,
    protocol: 'tcp' | 'udp',
    address: string,
    port: number,
    greeting: string,
  ): Promise<void> {
    const child = spawn(
      'nsenter',
      [
        `--net=${netnsPath}`,
        '--',
        process.execPath,
        peerProgram,
        'serve',
        protocol,
        address,
        String(port),
        greeting,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    this.#children.push(child);
    await underDeadline(background(), stepMs, 'starting a server', async () => once(child.stdout, 'data'));
  }

  async ask(
    netnsPath: string,
    protocol: 'tcp' | 'udp',
    address: string,
    port: number,
    localPort?: number,
  ): Promise<string> {
    const extra = localPort === undefined ? [] : [String(localPort)];
    return this.runIn(
      netnsPath,
      process.execPath,
      peerProgram,
      'ask',
      protocol,
      address,
      String(port),
      ...extra,
    );
  }

  /** Waits until duplicate address detection is over: a fresh bridge does not answer on IPv6 before. */
  async settle(): Promise<void> {
    while ((await this.run('ip', '-6', '-o', 'address', 'show', 'tentative')) !== '') await setTimeout(50);
  }

  /** Another machine on a wire to this host: `192.0.2.1` here, `192.0.2.2` there. */
  async addNeighbour(): Promise<string> {
    const path = await this.addNamespace();
    await this.run('ip', 'link', 'add', 'wire0', 'type', 'veth', 'peer', 'name', 'wire1', 'netns', path);
    await this.run('ip', 'address', 'add', '192.0.2.1/24', 'dev', 'wire0');
    await this.run('ip', 'link', 'set', 'wire0', 'up');
    await this.runIn(path, 'ip', 'address', 'add', '192.0.2.2/24', 'dev', 'wire1');
    await this.runIn(path, 'ip', 'link', 'set', 'wire1', 'up');
    return path;
  }

  /** Everything of this host goes; safe after any failure. */
  async dispose(): Promise<void> {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      await gone;
    }
    for (const name of [...this.#namespaces, this.name])
      await systemExec.run(background(), 'ip', ['netns', 'delete', name], { okExitCodes: [0, 1] });
    for (const path of this.#directories) await rm(path, { recursive: true, force: true });
  }
}

/** One daemon's network driver on a test host, with names, subnets and state of its own. */
export class TestNode {
  readonly instance = `hnt${randomBytes(4).toString('hex')}`;
  readonly second = randomInt(100, 200);
  readonly subnet4 = `10.${String(this.second)}.0.0/16`;
  readonly subnet6 = `fd00:${randomBytes(2).toString('hex')}:1::/64`;
  readonly bridge = `b${this.instance}`.slice(0, 15);
  readonly logger = new MemoryLogger();
  readonly settings: CniSettings;
  readonly factory: CniNetnsFactory;
  #network: CniNetwork;
  #life = { isOver: false };

  constructor(
    readonly host: TestHost,
    readonly directory: string,
    changes: Partial<CniSettings> = {},
  ) {
    this.settings = {
      instance: this.instance,
      hostHelper,
      confDir: join(directory, 'conf'),
      binDirs: debianBinDirs,
      stateDir: join(directory, 'state'),
      defaultNetwork: {
        name: `net-${this.instance}`,
        bridge: this.bridge,
        subnets: [this.subnet4, this.subnet6],
      },
      pluginTimeoutMs: 30_000,
      soleRuntime: false,
      ...changes,
    };
    this.factory = new CniNetnsFactory(host.exec, this.instance, hostHelper);
    this.#network = this.#start();
  }

  get network(): CniNetwork {
    return this.#network;
  }

  /** As after a kill: nothing is kept but what is on disk, and the one before does nothing any more. */
  restart(): void {
    this.#life.isOver = true;
    this.#network = this.#start();
  }

  #start(): CniNetwork {
    const life = { isOver: false };
    this.#life = life;
    return new CniNetwork(mortal(this.host.exec, life), this.settings, this.logger);
  }

  /** A namespace with a tap, and a veth `guest0` that takes the tap's place when a test wants to look behind it. */
  async newPod(portMappings: readonly PortMapping[] = []): Promise<TestPod> {
    const sandboxId = newId();
    const name = `${this.instance}-${sandboxId.slice(0, 13)}`;
    const { path } = await this.factory.create(background(), name, 64_000);
    const guestPath = await this.host.addNamespace();
    await this.host.runIn(path, 'ip', 'link', 'add', 'guest0', 'type', 'veth', 'peer', 'name', 'peer0');
    await this.host.runIn(path, 'ip', 'link', 'set', 'peer0', 'netns', guestPath);
    await this.host.runIn(path, 'ip', 'link', 'set', 'guest0', 'up');
    const metadata = { name: 'pod', namespace: 'default', uid: `uid-${sandboxId.slice(0, 8)}`, attempt: 0 };
    return {
      name,
      guestPath,
      request: { sandboxId, metadata, netnsPath: path, tap: 'guest0', portMappings },
    };
  }

  /** Attaches and sets the guest up as the agent would. */
  async attach(pod: TestPod): Promise<NetworkAttachment> {
    const attachment = await this.network.attach(background(), pod.request);
    for (const one of attachment.interfaces) await applyInGuest(this.host, pod.guestPath, one);
    await this.host.settle();
    return attachment;
  }

  /** Addresses that host-local has given out of the built-in network. */
  async leases(): Promise<string[]> {
    const directory = join(this.settings.stateDir, 'ipam', `net-${this.instance}`);
    const names = await readdir(directory).catch(() => [] as string[]);
    return names.filter((name) => isIP(name) !== 0);
  }

  /** Ids of the sandboxes that something is kept of. */
  async attachments(): Promise<string[]> {
    return readdir(join(this.settings.stateDir, 'attachments')).catch(() => []);
  }

  /** Deletes the namespaces of this instance that are left, stand-ins included. */
  async dispose(): Promise<void> {
    for (const name of await this.factory.list()) await this.factory.deleteGone(background(), name);
  }
}

export interface TestPod {
  readonly name: string;
  readonly guestPath: string;
  readonly request: NetworkRequest;
}

/** What a guest does with its interface, with iproute2. */
async function applyInGuest(host: TestHost, guestPath: string, one: GuestInterface): Promise<void> {
  const lines = [
    'link set dev lo up',
    `link set dev peer0 name ${one.name}`,
    `link set dev ${one.name} address ${one.mac} mtu ${String(one.mtu)} up`,
    ...one.addresses.map(
      ({ ip, prefixLength }) =>
        `address add ${ip}/${String(prefixLength)} dev ${one.name}${ip.includes(':') ? ' nodad' : ''}`,
    ),
    ...one.routes.map((route) =>
      [
        `route add ${route.destination}`,
        ...(route.gateway === undefined ? [] : [`via ${route.gateway}`]),
        `dev ${one.name}`,
        ...(route.onLink ? ['onlink'] : []),
        ...(route.mtu === undefined ? [] : [`mtu ${String(route.mtu)}`]),
        ...(route.metric === undefined ? [] : [`metric ${String(route.metric)}`]),
      ].join(' '),
    ),
  ];
  await underDeadline(background(), stepMs, 'setting the guest up', (ctx) =>
    host.exec.run(ctx, 'nsenter', [`--net=${guestPath}`, '--', 'ip', '-batch', '-'], {
      input: `${lines.join('\n')}\n`,
    }),
  );
}

/** Runs programs for as long as its daemon lives: a dead one learns of no end and starts nothing. */
function mortal(exec: Exec, life: { isOver: boolean }): Exec {
  const whileAlive = async <T>(outcome: Promise<T>): Promise<T> => {
    try {
      return await outcome;
    } finally {
      if (life.isOver) await new Promise<never>(() => undefined);
    }
  };
  return {
    run: async (...call) => whileAlive(life.isOver ? new Promise<never>(() => undefined) : exec.run(...call)),
  };
}

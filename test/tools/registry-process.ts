/** Debian's docker-registry (distribution 2.8) as a process of its own: a free port, its own data, optional TLS and login. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Agent } from 'undici';

import { background } from '../../lib/base/context.js';
import { systemExec } from '../../lib/base/exec.js';
import type { Certificates } from './certificates.js';
import { makeCertificates } from './certificates.js';
import { endWithUs } from './end-with-us.js';
import type { PushTarget } from './image-builder.js';

export interface RegistryOptions {
  /** Serves HTTPS with a certificate of its own CA. */
  readonly tls?: boolean;
  /** Asks for this login (basic, htpasswd). */
  readonly login?: { readonly username: string; readonly password: string };
}

const startTimeoutMs = 20_000;
const stopTimeoutMs = 5_000;

export class RegistryProcess {
  /** `127.0.0.1:port`, as references name it. */
  readonly host: string;
  /** For `pushImage`. */
  readonly target: PushTarget;
  readonly certificates: Certificates | undefined;
  readonly #child: ChildProcess;
  readonly #directory: string;
  readonly #agent: Agent | undefined;

  private constructor(
    host: string,
    directory: string,
    child: ChildProcess,
    certificates: Certificates | undefined,
    options: RegistryOptions,
  ) {
    this.host = host;
    this.certificates = certificates;
    this.#directory = directory;
    this.#child = child;
    this.#agent = certificates === undefined ? undefined : new Agent({ connect: { ca: certificates.ca } });
    const { login } = options;
    const basic =
      login === undefined ? '' : Buffer.from(`${login.username}:${login.password}`).toString('base64');
    this.target = {
      url: `${certificates === undefined ? 'http' : 'https'}://${host}`,
      ...(login === undefined ? {} : { authorization: `Basic ${basic}` }),
      ...(this.#agent === undefined ? {} : { dispatcher: this.#agent }),
    };
  }

  /** Resolves when the registry listens. @throws Error with its last words when it does not. */
  static async start(options: RegistryOptions = {}): Promise<RegistryProcess> {
    const directory = await mkdtemp(join(tmpdir(), 'herkos-registry-'));
    try {
      const host = `127.0.0.1:${String(await freePort())}`;
      const certificates = options.tls === true ? await makeCertificates(directory) : undefined;
      const config = join(directory, 'config.yml');
      await writeFile(config, JSON.stringify(await configOf(directory, host, certificates, options)));
      const child = spawn('docker-registry', ['serve', config], { stdio: ['ignore', 'ignore', 'pipe'] });
      endWithUs(child);
      await listening(child);
      return new RegistryProcess(host, directory, child, certificates, options);
    } catch (error) {
      await rm(directory, { recursive: true, force: true });
      throw error;
    }
  }

  /** Ends the process and removes its data; calling it twice is harmless. */
  async stop(): Promise<void> {
    await this.#agent?.close();
    await end(this.#child);
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** JSON is YAML, so no writer for the latter is needed. */
async function configOf(
  directory: string,
  host: string,
  certificates: Certificates | undefined,
  options: RegistryOptions,
): Promise<object> {
  const { login } = options;
  const htpasswd = join(directory, 'htpasswd');
  if (login !== undefined) {
    const input = `${login.password}\n`;
    const { stdout } = await systemExec.run(background(), 'htpasswd', ['-niB', login.username], { input });
    await writeFile(htpasswd, stdout);
  }
  return {
    version: '0.1',
    // Its last words are all that is read: at level info every request would be one of them.
    log: { level: 'info', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(directory, 'data') }, delete: { enabled: true } },
    http: {
      addr: host,
      secret: 'only-for-tests',
      ...(certificates === undefined
        ? {}
        : { tls: { certificate: certificates.certPath, key: certificates.keyPath } }),
    },
    ...(login === undefined ? {} : { auth: { htpasswd: { realm: 'tests', path: htpasswd } } }),
  };
}

/** The registry says `listening on …` when it does. */
async function listening(child: ChildProcess): Promise<void> {
  const { stderr } = child;
  if (stderr === null) throw new Error('the registry has no standard error');
  let words = '';
  try {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error('docker-registry did not listen in time'));
      }, startTimeoutMs);
      timer.unref();
      child.once('error', reject);
      child.once('exit', () => {
        reject(new Error('docker-registry ended'));
      });
      stderr.on('data', (part: Buffer) => {
        words = (words + part.toString('utf8')).slice(-8192);
        if (words.includes('listening on')) {
          clearTimeout(timer);
          resolve();
        }
      });
    });
  } catch (error) {
    await end(child);
    throw new Error(`${String(error)}: ${words.slice(-1000)}`, { cause: error });
  }
  // What comes later is read and dropped, so that the pipe never fills.
  stderr.removeAllListeners('data');
  stderr.resume();
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => {
      resolve();
    });
  });
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), stopTimeoutMs);
  await ended;
  clearTimeout(timer);
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((resolve) => {
    server.close(() => {
      resolve();
    });
  });
  return port;
}

import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext, rootCertificates } from 'node:tls';
import type { SecureContext } from 'node:tls';

import { Agent, ProxyAgent } from 'undici';
import type { Dispatcher } from 'undici';

import { HerkosError, messageOf } from '../../base/errors.js';
import type { TlsSettings } from './hosts-file.js';
import { proxyFor } from './proxy.js';
import type { RegistrySettings } from './settings.js';
import { connectionsPerHostMax, dispatchersMax, headerBytesMax } from './settings.js';

/** Where distributions keep the roots that an administrator may add to; the first that exists is used. */
const systemBundles: readonly string[] = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

/** Connection pools by TLS settings and proxy; the least recently used one is drained when there are too many. */
export class Dispatchers {
  readonly #settings: RegistrySettings;
  readonly #pools = new Map<string, Promise<Dispatcher>>();
  #roots: Promise<string> | undefined;

  constructor(settings: RegistrySettings) {
    this.#settings = settings;
  }

  /** @throws HerkosError `FailedPrecondition` for certificates or a proxy URL that cannot be used. */
  async for(url: URL, tls: TlsSettings): Promise<Dispatcher> {
    const proxy = proxyFor(url, this.#settings.proxy);
    const key = createHash('sha256')
      .update(JSON.stringify([url.protocol, tls, proxy]))
      .digest('hex');
    let pool = this.#pools.get(key);
    if (pool !== undefined) this.#pools.delete(key);
    else pool = this.#open(url.protocol === 'https:' ? tls : undefined, proxy);
    this.#pools.set(key, pool);
    this.#evict();
    try {
      return await pool;
    } catch (error) {
      this.#pools.delete(key);
      throw error;
    }
  }

  /** Ends all connections, also those in use. */
  async destroy(): Promise<void> {
    const pools = [...this.#pools.values()];
    this.#pools.clear();
    await Promise.all(
      pools.map(async (pool) => pool.then((dispatcher) => dispatcher.destroy()).catch(() => undefined)),
    );
  }

  #evict(): void {
    for (const [key, pool] of this.#pools) {
      if (this.#pools.size <= dispatchersMax) return;
      this.#pools.delete(key);
      void pool.then((dispatcher) => dispatcher.close()).catch(() => undefined);
    }
  }

  async #open(tls: TlsSettings | undefined, proxy: string | undefined): Promise<Dispatcher> {
    const { stallTimeoutMs, connectTimeoutMs } = this.#settings;
    const connect = {
      timeout: connectTimeoutMs,
      // Reading the system's roots takes some 40 ms of the event loop: once for each setting, and only for TLS.
      ...(tls === undefined
        ? {}
        : { secureContext: await this.#secureContext(tls), rejectUnauthorized: !tls.skipVerify }),
    };
    const options = {
      connections: connectionsPerHostMax,
      // Several layers of one image must not wait for each other on one connection.
      pipelining: 1,
      headersTimeout: stallTimeoutMs,
      bodyTimeout: stallTimeoutMs,
      maxHeaderSize: headerBytesMax,
    };
    if (proxy === undefined) return new Agent({ ...options, connect });
    if (!/^https?:\/\//.test(proxy) || !URL.canParse(proxy))
      throw new HerkosError('FailedPrecondition', 'the proxy in the environment is not an http or https URL');
    return new ProxyAgent({ ...options, uri: proxy, requestTls: connect, proxyTunnel: false });
  }

  async #secureContext(tls: TlsSettings): Promise<SecureContext> {
    this.#roots ??= readRoots();
    try {
      return createSecureContext({
        ca: [await this.#roots, ...tls.ca],
        ...(tls.clientCert === undefined ? {} : { cert: tls.clientCert }),
        ...(tls.clientKey === undefined ? {} : { key: tls.clientKey }),
        minVersion: 'TLSv1.2',
      });
    } catch (error) {
      throw new HerkosError(
        'FailedPrecondition',
        `a certificate or key for the registry cannot be used: ${messageOf(error)}`,
        {
          cause: error,
        },
      );
    }
  }
}

async function readRoots(): Promise<string> {
  for (const path of systemBundles) {
    const text = await readFile(path, 'utf8').catch(() => '');
    if (text.includes('BEGIN CERTIFICATE')) return text;
  }
  return rootCertificates.join('\n');
}

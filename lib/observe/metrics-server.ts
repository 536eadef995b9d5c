import { once } from 'node:events';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { BlockList, isIPv6 } from 'node:net';

import { HerkosError, isErrno, messageOf } from '../base/errors.js';
import type { Logger } from '../base/logger.js';

/** Who connects may be anybody: every one of these bounds what they can take. */
const headersTimeoutMs = 5_000;
const requestTimeoutMs = 10_000;
/** Also for a client that does not read the answer. */
const idleTimeoutMs = 15_000;
const headerBytesMax = 8 * 1024;
const headersMax = 64;
const connectionsMax = 32;
const timeoutCheckMs = 1_000;
const drainMs = 1_000;

export interface MetricsServerOptions {
  /** An IP address. */
  readonly host: string;
  /** 0: any that is free. */
  readonly port: number;
  readonly contentType: string;
  readonly text: () => Promise<string>;
  /** What /healthz says: does the daemon serve? */
  readonly isServing: () => boolean;
  readonly logger: Logger;
}

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** GET /metrics and GET /healthz over plain HTTP, to whoever can connect. */
export class MetricsServer {
  readonly #server: Server;
  readonly #options: MetricsServerOptions;
  /** Connections with a request whose answer has not gone out whole yet. */
  readonly #busy = new WeakSet<Socket>();
  #closed: Promise<void> | undefined;

  private constructor(options: MetricsServerOptions) {
    this.#options = options;
    this.#server = createServer(
      {
        maxHeaderSize: headerBytesMax,
        headersTimeout: headersTimeoutMs,
        requestTimeout: requestTimeoutMs,
        connectionsCheckingInterval: timeoutCheckMs,
      },
      (request, response) => {
        if (this.#isFirst(request.socket, response)) void this.#serve(request, response);
      },
    );
    this.#server.maxConnections = connectionsMax;
    this.#server.maxHeadersCount = headersMax;
    this.#server.timeout = idleTimeoutMs;
  }

  /** @throws FailedPrecondition when it cannot listen there */
  static async listen(options: MetricsServerOptions): Promise<MetricsServer> {
    const { host, port, logger } = options;
    const made = new MetricsServer(options);
    try {
      made.#server.listen({ host, port });
      await once(made.#server, 'listening');
    } catch (error) {
      const why = isErrno(error, 'EADDRINUSE')
        ? 'another process serves there; stop it, or configure another metrics.address'
        : messageOf(error);
      throw new HerkosError('FailedPrecondition', `cannot serve metrics on ${host}:${String(port)}: ${why}`, {
        cause: error,
      });
    }
    // Later errors are of single connections that could not be accepted.
    made.#server.on('error', (error) => {
      logger.warn('a connection for the metrics failed', { error: messageOf(error) });
    });
    if (!isLoopback(host))
      logger.warn('metrics are served to whoever reaches this address, without asking who it is', { host });
    return made;
  }

  /** Where it listens, as `host:port`. */
  get address(): string {
    const { address, port } = this.#server.address() as AddressInfo;
    return isIPv6(address) ? `[${address}]:${String(port)}` : `${address}:${String(port)}`;
  }

  /** Answers that are on their way may end; after a moment they are cut off. Idempotent. */
  async close(): Promise<void> {
    this.#closed ??= new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        this.#server.closeAllConnections();
      }, drainMs);
      this.#server.close(() => {
        clearTimeout(timer);
        resolve();
      });
      this.#server.closeIdleConnections();
    });
    await this.#closed;
  }

  /**
   * Ends a connection that asks again before it has been answered. Node hands over every request that it has read,
   * thousands in a few kilobytes, and would keep all their answers in memory until the first ones are gone.
   */
  #isFirst(socket: Socket, response: ServerResponse): boolean {
    if (this.#busy.has(socket)) {
      socket.destroy();
      return false;
    }
    this.#busy.add(socket);
    response.once('close', () => this.#busy.delete(socket));
    return true;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { status, body, headers } = await this.#answer(request);
    response.writeHead(status, {
      'content-type': 'text/plain; charset=utf-8',
      'content-length': Buffer.byteLength(body),
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      // Whatever a body is for, nobody reads it here.
      ...(hasBody(request) || this.#closed !== undefined ? { connection: 'close' } : {}),
      ...headers,
    });
    response.end(request.method === 'HEAD' ? undefined : body);
  }

  async #answer({ method, url = '' }: IncomingMessage): Promise<Answer> {
    const path = url.split('?', 1)[0];
    if (path !== '/metrics' && path !== '/healthz')
      return { status: 404, body: 'there are only /metrics and /healthz\n' };
    if (method !== 'GET') return { status: 405, body: 'only GET\n', headers: { allow: 'GET' } };
    const { isServing, text, contentType, logger } = this.#options;
    if (path === '/healthz')
      return isServing() ? { status: 200, body: 'ok\n' } : { status: 503, body: 'not serving\n' };
    try {
      return { status: 200, body: await text(), headers: { 'content-type': contentType } };
    } catch (error) {
      logger.error('the metrics cannot be written', { error: messageOf(error) });
      return { status: 500, body: 'the metrics cannot be written; the log says why\n' };
    }
  }
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0';
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

function isLoopback(host: string): boolean {
  return loopback.check(host, isIPv6(host) ? 'ipv6' : 'ipv4');
}

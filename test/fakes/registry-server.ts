/** A registry in this process that can be told to stall, lie, reset, redirect, challenge and flood. */
import { createServer as createHttpServer } from 'node:http';
import type { IncomingHttpHeaders, IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { ServerOptions } from 'node:https';
import type { AddressInfo } from 'node:net';

import { sha256Digest } from '../../lib/wire/oci/digest.js';
import type { BuiltImage } from '../tools/image-builder.js';

export interface SeenRequest {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** Looks at a request before the registry does; true when it has answered (or broken) it. */
export type Intercept = (seen: SeenRequest, response: ServerResponse) => boolean | Promise<boolean>;

export class FakeRegistry {
  readonly blobs = new Map<string, Buffer>();
  /** By `repository:tag` and `repository@digest`. */
  readonly manifests = new Map<string, { readonly mediaType: string; readonly bytes: Buffer }>();
  readonly requests: SeenRequest[] = [];
  intercept: Intercept = () => false;
  readonly #server: Server;
  readonly #scheme: string;

  private constructor(server: Server, scheme: string) {
    this.#server = server;
    this.#scheme = scheme;
  }

  static async start(tls?: ServerOptions): Promise<FakeRegistry> {
    const server = tls === undefined ? createHttpServer() : createHttpsServer(tls);
    const registry = new FakeRegistry(server, tls === undefined ? 'http' : 'https');
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      void registry.#handle(request, response);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return registry;
  }

  /** `127.0.0.1:port`. */
  get host(): string {
    return `127.0.0.1:${String((this.#server.address() as AddressInfo).port)}`;
  }

  get url(): string {
    return `${this.#scheme}://${this.host}`;
  }

  add(repository: string, tag: string, image: BuiltImage): void {
    for (const layer of image.layers) this.blobs.set(layer.descriptor.digest, layer.bytes);
    this.blobs.set(image.configDescriptor.digest, image.config);
    this.addManifest(repository, tag, image.manifest, image.manifestDescriptor.mediaType);
  }

  addManifest(repository: string, tag: string, bytes: Buffer, mediaType: string): void {
    this.manifests.set(`${repository}:${tag}`, { mediaType, bytes });
    this.manifests.set(`${repository}@${sha256Digest(bytes)}`, { mediaType, bytes });
  }

  /** Requests for blobs, in order. */
  blobRequests(): SeenRequest[] {
    return this.requests.filter((seen) => seen.url.includes('/blobs/'));
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
    const seen: SeenRequest = {
      method: request.method ?? '',
      url: request.url ?? '',
      headers: request.headers,
      body: Buffer.concat(parts).toString('utf8'),
    };
    this.requests.push(seen);
    response.on('error', () => undefined);
    if (await this.intercept(seen, response)) return;
    const path = seen.url.split('?')[0] ?? '';
    const blob = /\/blobs\/(sha256:[0-9a-f]{64})$/.exec(path);
    const manifest = /^(?:\/[a-z]*)?\/v2\/(.+)\/manifests\/([^/]+)$/.exec(path);
    if (blob !== null) this.#serveBlob(seen, response, this.blobs.get(blob[1] ?? ''));
    else if (manifest !== null) this.#serveManifest(response, manifest[1] ?? '', manifest[2] ?? '');
    else answer(response, 404, '{}');
  }

  #serveManifest(response: ServerResponse, repository: string, reference: string): void {
    const found = this.manifests.get(
      `${repository}${reference.startsWith('sha256:') ? '@' : ':'}${reference}`,
    );
    if (found === undefined) {
      answer(response, 404, '{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}');
      return;
    }
    response.writeHead(200, {
      'content-type': found.mediaType,
      'content-length': found.bytes.length,
      'docker-content-digest': sha256Digest(found.bytes),
    });
    response.end(found.bytes);
  }

  #serveBlob(seen: SeenRequest, response: ServerResponse, bytes: Buffer | undefined): void {
    if (bytes === undefined)
      answer(response, 404, '{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}');
    else serveBytes(seen, response, bytes);
  }
}

/** Answers with bytes, or the asked part of them. */
export function serveBytes(seen: SeenRequest, response: ServerResponse, bytes: Buffer): void {
  const range = /^bytes=(\d+)-$/.exec(seen.headers.range ?? '');
  const start = range === null ? 0 : Number(range[1]);
  if (range === null) response.writeHead(200, { 'content-length': bytes.length });
  else
    response.writeHead(206, {
      'content-length': bytes.length - start,
      'content-range': `bytes ${String(start)}-${String(bytes.length - 1)}/${String(bytes.length)}`,
    });
  response.end(bytes.subarray(start));
}

export function answer(
  response: ServerResponse,
  status: number,
  body: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(body);
}

/** Sends the head and the first `count` bytes of what `serveBytes` would send, then breaks the connection. */
export function resetAfter(seen: SeenRequest, response: ServerResponse, bytes: Buffer, count: number): void {
  partly(seen, response, bytes, count, () => {
    response.socket?.resetAndDestroy();
  });
}

/** The same, but then neither sends nor ends. */
export function stallAfter(seen: SeenRequest, response: ServerResponse, bytes: Buffer, count: number): void {
  partly(seen, response, bytes, count, () => undefined);
}

function partly(
  seen: SeenRequest,
  response: ServerResponse,
  bytes: Buffer,
  count: number,
  then: () => void,
): void {
  const range = /^bytes=(\d+)-$/.exec(seen.headers.range ?? '');
  const start = range === null ? 0 : Number(range[1]);
  const total = String(bytes.length);
  response.writeHead(range === null ? 200 : 206, {
    'content-length': bytes.length - start,
    ...(range === null
      ? {}
      : { 'content-range': `bytes ${String(start)}-${String(bytes.length - 1)}/${total}` }),
  });
  response.flushHeaders();
  if (count === 0) then();
  else
    response.write(bytes.subarray(start, start + count), () => {
      // The bytes are in the socket's buffer; a reset now could still overtake them on the way.
      setTimeout(then, 20);
    });
}

/** HTTP with the registry's rules: bounded redirects that never carry credentials elsewhere, bounded answers. */
import { request } from 'undici';
import type { Dispatcher } from 'undici';

import type { Context } from '../../base/context.js';
import { throwIfDone } from '../../base/context.js';
import { HerkosError } from '../../base/errors.js';
import type { Dispatchers } from './dispatchers.js';
import { AttemptFailure, errorTextOf, statusFailure, transportFailure, unavailable } from './failure.js';
import type { TlsSettings } from './hosts-file.js';
import { leadsInside } from './proxy.js';
import { errorBodyBytesMax, redirectsMax } from './settings.js';

export interface HttpRequest {
  readonly method: 'GET' | 'POST';
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** Sent to `url`'s origin only. */
  readonly authorization: string | undefined;
  readonly body?: string;
  readonly tls: TlsSettings;
  /** What is being asked, for errors: never holds a URL, since those of blobs can be secrets. */
  readonly what: string;
}

export interface HttpReply {
  readonly status: number;
  readonly body: Dispatcher.ResponseData['body'];
  /** The answer came from `HttpRequest.url`'s origin. */
  readonly sameOrigin: boolean;
  /** It came over TLS. */
  readonly secure: boolean;
  /** `what` with the host that answered. */
  readonly where: string;
  /** The first line of a header; name in lower case. */
  header(name: string): string | undefined;
  headers(name: string): readonly string[];
}

/** TLS settings for a host that a redirect leads to; never with a client's key. */
export type TlsLookup = (host: string) => Promise<TlsSettings>;

export class Transport {
  readonly #dispatchers: Dispatchers;
  readonly #userAgent: string;
  readonly #tlsOf: TlsLookup;

  constructor(dispatchers: Dispatchers, version: string, tlsOf: TlsLookup) {
    this.#dispatchers = dispatchers;
    this.#userAgent = `herkos/${version}`;
    this.#tlsOf = tlsOf;
  }

  /** Sends a request and follows redirects of GETs. @throws AttemptFailure, or the context's reason. */
  async send(ctx: Context, wanted: HttpRequest): Promise<HttpReply> {
    let url = wanted.url;
    for (let hop = 0; hop <= redirectsMax; hop += 1) {
      const sameOrigin = url.origin === wanted.url.origin;
      const tls = sameOrigin ? wanted.tls : await this.#tlsOf(url.host);
      const reply = await this.#once(ctx, wanted, url, tls, sameOrigin);
      if (!isRedirect(reply.status) || wanted.method !== 'GET') return reply;
      const location = reply.header('location');
      await discard(reply);
      url = checkRedirect(location, url, reply.where);
    }
    throw new AttemptFailure(unavailable(wanted.what, `more than ${String(redirectsMax)} redirects`), false);
  }

  async #once(
    ctx: Context,
    wanted: HttpRequest,
    url: URL,
    tls: TlsSettings,
    sameOrigin: boolean,
  ): Promise<HttpReply> {
    throwIfDone(ctx);
    const where = `${wanted.what} at ${url.host}`;
    try {
      const { statusCode, headers, body } = await request(url, {
        method: wanted.method,
        dispatcher: await this.#dispatchers.for(url, tls),
        signal: ctx.signal,
        headers: {
          ...wanted.headers,
          // Anything but the stored bytes would have another digest.
          'accept-encoding': 'identity',
          'user-agent': this.#userAgent,
          ...(sameOrigin && wanted.authorization !== undefined
            ? { authorization: wanted.authorization }
            : {}),
        },
        ...(wanted.body === undefined ? {} : { body: wanted.body }),
      });
      // A body that breaks while nobody reads it is reported by the next read.
      body.on('error', () => undefined);
      const all = (name: string): readonly string[] => {
        const value = headers[name];
        return value === undefined ? [] : Array.isArray(value) ? value : [value];
      };
      const secure = url.protocol === 'https:';
      return {
        status: statusCode,
        body,
        sameOrigin,
        secure,
        where,
        headers: all,
        header: (name) => all(name)[0],
      };
    } catch (error) {
      throwIfDone(ctx);
      throw transportFailure(where, error);
    }
  }
}

/** The whole body, if it is not longer than `bytesMax`. @throws AttemptFailure, or the context's reason. */
export async function readBody(ctx: Context, reply: HttpReply, bytesMax: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let total = 0;
  try {
    for await (const part of reply.body as AsyncIterable<Buffer>) {
      total += part.length;
      if (total > bytesMax)
        throw new HerkosError(
          'FailedPrecondition',
          `${reply.where}: the answer is longer than ${String(bytesMax)} bytes`,
        );
      parts.push(part);
    }
  } catch (error) {
    throwIfDone(ctx);
    throw transportFailure(reply.where, error);
  } finally {
    reply.body.destroy();
  }
  return Buffer.concat(parts);
}

/** The failure that a reply with an unwanted status is; reads what the registry says about it. */
export async function failureOf(ctx: Context, reply: HttpReply): Promise<AttemptFailure> {
  let said = '';
  try {
    said = errorTextOf((await readBody(ctx, reply, errorBodyBytesMax)).toString('utf8'));
  } catch {
    throwIfDone(ctx);
  }
  return statusFailure(reply.where, reply.status, said, reply.header('retry-after'));
}

/** Reads a short answer to its end, so that the connection can be used again. */
export async function discard(reply: HttpReply): Promise<void> {
  await reply.body.dump({ limit: errorBodyBytesMax }).catch(() => undefined);
}

function isRedirect(status: number): boolean {
  return status === 301 || status === 302 || status === 303 || status === 307 || status === 308;
}

/** A redirect may lead to another host, but never to a less protected one, nor from outside into this machine. */
function checkRedirect(location: string | undefined, from: URL, where: string): URL {
  const refuse = (why: string): AttemptFailure =>
    new AttemptFailure(
      new HerkosError('FailedPrecondition', `${where}: a redirect ${why} is not followed`),
      false,
    );
  if (location === undefined || !URL.canParse(location, from.href)) throw refuse('without a place');
  const to = new URL(location, from);
  if (to.protocol !== 'https:' && to.protocol !== 'http:') throw refuse(`to ${to.protocol}`);
  if (from.protocol === 'https:' && to.protocol === 'http:') throw refuse('from HTTPS to plain HTTP');
  if (to.username !== '' || to.password !== '') throw refuse('with a password');
  if (leadsInside(from.hostname, to.hostname)) throw refuse('into this machine or its link');
  return to;
}

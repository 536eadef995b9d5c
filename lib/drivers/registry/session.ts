/** The registry as one request sees it: one set of credentials, the places to ask, what was learnt of them. */
import type { Context } from '../../base/context.js';
import { sleep, throwIfDone, underDeadline } from '../../base/context.js';
import { HerkosError } from '../../base/errors.js';
import type { Authenticator } from './authenticator.js';
import type { Endpoint } from './endpoints.js';
import { AttemptFailure, isPlainAnswer } from './failure.js';
import type { Capability } from './hosts-file.js';
import type { RetrySettings } from './settings.js';
import { documentTimeoutMs } from './settings.js';
import type { HttpReply, Transport } from './transport.js';
import { discard, failureOf } from './transport.js';

export interface EndpointRequest {
  readonly repository: string;
  /** Below the repository: `manifests/latest`. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly what: string;
}

/** Sends requests to the endpoints of one registry host. */
export class RegistrySession {
  readonly #endpoints: readonly Endpoint[];
  readonly #transport: Transport;
  readonly #authenticator: Authenticator;
  readonly #retry: RetrySettings;
  /** Endpoints that could not be reached: not tried again while there are others. */
  readonly #down = new Set<Endpoint>();
  /** Endpoints on this machine that answered HTTPS in plain text. */
  readonly #plain = new Set<Endpoint>();

  constructor(
    endpoints: readonly Endpoint[],
    transport: Transport,
    authenticator: Authenticator,
    retry: RetrySettings,
  ) {
    this.#endpoints = endpoints;
    this.#transport = transport;
    this.#authenticator = authenticator;
    this.#retry = retry;
  }

  get retry(): RetrySettings {
    return this.#retry;
  }

  /** The endpoints worth asking, in order; never empty. */
  candidates(capability: Capability, except: ReadonlySet<Endpoint> = new Set()): readonly Endpoint[] {
    const capable = this.#endpoints.filter((endpoint) => endpoint.capabilities.has(capability));
    const trusted = capable.filter((endpoint) => !except.has(endpoint));
    const candidates = trusted.length === 0 ? capable : trusted;
    const up = candidates.filter((endpoint) => !this.#down.has(endpoint));
    return up.length === 0 ? candidates : up;
  }

  markDown(endpoint: Endpoint): void {
    this.#down.add(endpoint);
  }

  /**
   * Runs `body` at the endpoints in turn, several times where that can help, until one succeeds.
   * @throws HerkosError of the last endpoint, which is the registry itself, or the context's reason.
   */
  async overEndpoints<T>(
    ctx: Context,
    capability: Capability,
    body: (ctx: Context, endpoint: Endpoint) => Promise<T>,
  ): Promise<T> {
    const mirrorErrors: string[] = [];
    const candidates = this.candidates(capability);
    for (const [index, endpoint] of candidates.entries()) {
      const last = index === candidates.length - 1;
      try {
        return await this.#attempts(
          ctx,
          endpoint,
          last ? this.#retry.attemptsMax : this.#retry.mirrorAttemptsMax,
          body,
        );
      } catch (error) {
        throwIfDone(ctx);
        if (!(error instanceof AttemptFailure)) throw error;
        if (error.error.class === 'Unavailable') this.markDown(endpoint);
        if (last) throw withMirrorErrors(error.error, mirrorErrors);
        mirrorErrors.push(error.error.message);
      }
    }
    throw new HerkosError('Internal', 'a registry has no endpoint');
  }

  /** One authenticated GET with a good status (200 or 206). @throws AttemptFailure, or the context's reason. */
  async get(ctx: Context, endpoint: Endpoint, request: EndpointRequest): Promise<HttpReply> {
    let authorization = this.#authenticator.header(endpoint, request.repository);
    let reply = await this.#send(ctx, endpoint, request, authorization);
    if (reply.status === 401 && reply.sameOrigin) {
      const next = await this.#authenticator.answer(ctx, endpoint, request.repository, reply, authorization);
      if (next !== undefined) {
        authorization = next;
        await discard(reply);
        reply = await this.#send(ctx, endpoint, request, authorization);
      }
    }
    if (reply.status === 200 || reply.status === 206) return reply;
    throw await failureOf(ctx, reply);
  }

  async #send(
    ctx: Context,
    endpoint: Endpoint,
    request: EndpointRequest,
    authorization: string | undefined,
  ): Promise<HttpReply> {
    const send = async (): Promise<HttpReply> =>
      this.#transport.send(ctx, {
        method: 'GET',
        url: this.#urlOf(endpoint, request),
        headers: request.headers,
        authorization,
        tls: endpoint.tls,
        what: request.what,
      });
    try {
      return await send();
    } catch (error) {
      const cause = error instanceof AttemptFailure ? error.error.cause : undefined;
      if (!endpoint.plainFallback || this.#plain.has(endpoint) || !isPlainAnswer(cause)) throw error;
      this.#plain.add(endpoint);
      return send();
    }
  }

  #urlOf(endpoint: Endpoint, request: EndpointRequest): URL {
    const url = new URL(`${endpoint.base}${request.repository}/${request.path}`);
    if (endpoint.namespace !== '') url.searchParams.set('ns', endpoint.namespace);
    if (this.#plain.has(endpoint)) url.protocol = 'http:';
    return url;
  }

  async #attempts<T>(
    ctx: Context,
    endpoint: Endpoint,
    attemptsMax: number,
    body: (ctx: Context, endpoint: Endpoint) => Promise<T>,
  ): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await underDeadline(ctx, documentTimeoutMs, `asking ${new URL(endpoint.base).host}`, (inner) =>
          body(inner, endpoint),
        );
      } catch (error) {
        throwIfDone(ctx);
        const failure = asFailure(error);
        if (!failure.retryable || attempt >= attemptsMax) throw failure;
        await this.pause(ctx, attempt, failure);
      }
    }
  }

  /** Waits before attempt `attempt + 1`. @throws AttemptFailure when the registry asks for too long a pause. */
  async pause(ctx: Context, attempt: number, failure: AttemptFailure): Promise<void> {
    if (failure.retryAfterMs > this.#retry.retryAfterMaxMs) throw new AttemptFailure(failure.error, false);
    await sleep(ctx, Math.max(failure.retryAfterMs, backoffMs(this.#retry, attempt, Math.random())));
  }
}

/** Doubling pauses with up to half of each random, so that many nodes do not come back at once. */
export function backoffMs(retry: RetrySettings, attempt: number, random: number): number {
  const whole = Math.min(retry.delayMaxMs, retry.delayFirstMs * 2 ** (attempt - 1));
  return whole / 2 + (whole / 2) * random;
}

/** A deadline of one attempt is worth another one. */
export function asFailure(error: unknown): AttemptFailure {
  if (error instanceof AttemptFailure) return error;
  if (!(error instanceof HerkosError)) throw error;
  if (error.class !== 'DeadlineExceeded') return new AttemptFailure(error, false);
  return new AttemptFailure(
    new HerkosError('Unavailable', `RegistryUnavailable: ${error.message}`, { cause: error }),
    true,
  );
}

function withMirrorErrors(error: HerkosError, mirrorErrors: readonly string[]): HerkosError {
  if (mirrorErrors.length === 0) return error;
  const reason = error.reason === undefined ? {} : { reason: error.reason };
  return new HerkosError(error.class, `${error.message} (before that: ${mirrorErrors.join('; ')})`, {
    cause: error,
    ...reason,
  });
}

/** From what went wrong on the wire to an error that says where, and whether trying again can help. */
import type { ErrorClass } from '../../base/errors.js';
import { HerkosError, messageOf } from '../../base/errors.js';

/** The kubelet shows pulls that fail with this word as `RegistryUnavailable` (cri-api pkg/errors). */
export const unavailablePrefix = 'RegistryUnavailable';

/** One failed attempt; `error` is what the caller sees when no other attempt follows. */
export class AttemptFailure extends Error {
  readonly error: HerkosError;
  /** The same request may succeed later. */
  readonly retryable: boolean;
  /** What Retry-After asked for; 0 when it did not. */
  readonly retryAfterMs: number;

  constructor(error: HerkosError, retryable: boolean, retryAfterMs = 0) {
    super(error.message, { cause: error });
    this.error = error;
    this.retryable = retryable;
    this.retryAfterMs = retryAfterMs;
  }
}

export function unavailable(where: string, why: string, cause?: unknown): HerkosError {
  return new HerkosError('Unavailable', `${unavailablePrefix}: ${where}: ${why}`, {
    reason: 'REGISTRY_UNAVAILABLE',
    cause,
  });
}

export function dataLoss(where: string, why: string): HerkosError {
  return new HerkosError('DataLoss', `${where}: ${why}`, { reason: 'IMAGE_DIGEST_MISMATCH' });
}

/** A failure below HTTP: name resolution, connection, TLS, time-outs, a broken transfer. */
export function transportFailure(where: string, error: unknown): AttemptFailure {
  if (error instanceof AttemptFailure) return error;
  if (error instanceof HerkosError) return new AttemptFailure(error, false);
  const code = codeOf(error);
  if (certificateCodes.has(code))
    return new AttemptFailure(
      unavailable(
        where,
        `its certificate is not trusted (${code}); set ca for this host in its registries.d file`,
        error,
      ),
      false,
    );
  const words = wordsFor[code] ?? messageOf(error);
  return new AttemptFailure(unavailable(where, words, error), code !== 'UND_ERR_HEADERS_OVERFLOW');
}

/** The first code in a chain of causes; undici wraps what the socket said. */
export function codeOf(error: unknown): string {
  let current = error;
  for (let depth = 0; depth < 5 && current instanceof Error; depth += 1) {
    if (current instanceof AggregateError) current = (current.errors as unknown[])[0];
    else if ('code' in current && typeof current.code === 'string' && current.code !== 'UND_ERR_SOCKET')
      return current.code;
    else current = current.cause ?? undefined;
  }
  return '';
}

/** True when a server answered a TLS greeting in plain text. */
export function isPlainAnswer(error: unknown): boolean {
  const code = codeOf(error);
  return (
    code === 'ERR_SSL_WRONG_VERSION_NUMBER' ||
    code === 'ERR_SSL_PACKET_LENGTH_TOO_LONG' ||
    (code === 'EPROTO' && /wrong version number|packet length too long/.test(messageOf(error)))
  );
}

/** An HTTP status that is not the hoped-for one. `said` is the registry's own text, cleaned and short. */
export function statusFailure(
  where: string,
  status: number,
  said: string,
  retryAfter: string | undefined,
): AttemptFailure {
  const detail = said === '' ? '' : ` (${said})`;
  const fail = (errorClass: ErrorClass, why: string): AttemptFailure =>
    new AttemptFailure(new HerkosError(errorClass, `${where}: ${why}${detail}`), false);
  if (status === 404) return fail('NotFound', 'not found');
  if (status === 401) return fail('Unauthenticated', 'the registry wants a login, or refused the one given');
  if (status === 403) return fail('PermissionDenied', 'the registry denies access');
  const retryable = status === 408 || status === 425 || status === 429 || status >= 500;
  const why = status === 429 ? 'too many requests' : `HTTP status ${String(status)}`;
  return new AttemptFailure(unavailable(where, `${why}${detail}`), retryable, parseRetryAfter(retryAfter));
}

/** Retry-After in seconds or as a date (RFC 9110, 10.2.3), as milliseconds from now. */
export function parseRetryAfter(text: string | undefined, nowMs: number = Date.now()): number {
  if (text === undefined) return 0;
  if (/^\d{1,9}$/.test(text.trim())) return Number(text) * 1000;
  const date = Date.parse(text);
  return Number.isNaN(date) ? 0 : Math.max(0, date - nowMs);
}

/** What a registry said in its JSON error document (distribution-spec, error codes), made safe to print. */
export function errorTextOf(body: string): string {
  let text = '';
  try {
    const document: unknown = JSON.parse(body);
    const errors: unknown =
      typeof document === 'object' && document !== null && 'errors' in document ? document.errors : [];
    if (Array.isArray(errors))
      text = errors
        .slice(0, 3)
        .map((entry: unknown) => {
          if (typeof entry !== 'object' || entry === null) return '';
          const code = 'code' in entry && typeof entry.code === 'string' ? entry.code : '';
          const message = 'message' in entry && typeof entry.message === 'string' ? entry.message : '';
          return `${code}: ${message}`;
        })
        .join('; ');
  } catch {
    // Not the specified document: proxies answer in HTML, which helps nobody.
  }
  return text.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 200);
}

const certificateCodes: ReadonlySet<string> = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'CERT_UNTRUSTED',
  'ERR_TLS_CERT_ALTNAME_INVALID',
]);

const wordsFor: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nobody listens there (connection refused)',
  ECONNRESET: 'the connection was reset',
  ENOTFOUND: 'its name is not known to DNS',
  EAI_AGAIN: 'DNS does not answer',
  EHOSTUNREACH: 'there is no route to it',
  ENETUNREACH: 'there is no route to it',
  UND_ERR_CONNECT_TIMEOUT: 'it does not accept connections in time',
  UND_ERR_HEADERS_TIMEOUT: 'it does not answer in time',
  UND_ERR_BODY_TIMEOUT: 'the transfer stalled',
  UND_ERR_HEADERS_OVERFLOW: 'its answer has too many headers',
};

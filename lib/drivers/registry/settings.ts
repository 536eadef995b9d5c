/** What the registry client is told, and the bounds it keeps whatever a registry says. */
import { KIB, MIB } from '../../base/units.js';

export interface RegistrySettings {
  /** Directory with one `<host>.toml` per registry (hosts-file.ts); it may be missing. */
  readonly hostsDirectory: string;
  /** A transfer in which not one byte arrives for so long is broken; it is resumed. */
  readonly stallTimeoutMs: number;
  readonly connectTimeoutMs: number;
  /** Sent as `User-Agent: herkos/<version>`. */
  readonly version: string;
  readonly proxy: ProxySettings;
  readonly retry: RetrySettings;
}

export interface ProxySettings {
  /** URL of the proxy for plain HTTP; may hold a user and a password. */
  readonly httpProxy: string | undefined;
  readonly httpsProxy: string | undefined;
  /** Comma-separated hosts, domains (`.svc`), addresses and CIDRs that are reached directly; `*` for all. */
  readonly noProxy: string;
}

export interface RetrySettings {
  /** Tries of one request at the last endpoint that could answer it. */
  readonly attemptsMax: number;
  /** Tries at a mirror while others are left. */
  readonly mirrorAttemptsMax: number;
  /** The first pause; each next one doubles, with up to half of it random. */
  readonly delayFirstMs: number;
  readonly delayMaxMs: number;
  /** A registry that asks for a longer pause (Retry-After) gets none: the pull fails and is retried by the client. */
  readonly retryAfterMaxMs: number;
  /** Broken transfers of one blob that are resumed, when each brought at least one byte. */
  readonly resumesMax: number;
}

export const defaultRetry: RetrySettings = {
  attemptsMax: 5,
  mirrorAttemptsMax: 2,
  delayFirstMs: 200,
  delayMaxMs: 5_000,
  retryAfterMaxMs: 30_000,
  resumesMax: 50,
};

export const redirectsMax = 5;
export const tokenBytesMax = 256 * KIB;
export const errorBodyBytesMax = 8 * KIB;
export const headerBytesMax = 32 * KIB;
/** A manifest or a token that takes longer than this in all is given up and tried again. */
export const documentTimeoutMs = 60_000;
export const hostsFileBytesMax = 1 * MIB;
/** Connections to one registry: what N layers at a time and some manifests need. */
export const connectionsPerHostMax = 16;
/** Different TLS settings kept connected at a time. */
export const dispatchersMax = 32;

/** Proxies as every command-line program takes them from the environment; lower case wins. */
export function proxyFromEnvironment(env: Readonly<Record<string, string | undefined>>): ProxySettings {
  const read = (name: string): string | undefined => {
    const value = env[name.toLowerCase()] ?? env[name];
    return value === '' ? undefined : value;
  };
  return {
    httpProxy: read('HTTP_PROXY'),
    httpsProxy: read('HTTPS_PROXY'),
    noProxy: read('NO_PROXY') ?? '',
  };
}

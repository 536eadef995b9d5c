/**
 * One registry's settings: `<directory>/<host[:port]>.toml`, else `<directory>/_default.toml`. Read at
 * every pull, so that a change needs no restart.
 *
 *     server = "https://registry.example"   # the registry itself; https://<host> unless told
 *     plain_http = false                    # with the default server: http instead of https
 *     ca = ["/etc/herkos/ca.pem"]           # trusted besides the system's roots
 *     client_cert = "…"                     # for the server alone
 *     client_key = "…"
 *     skip_verify = false
 *
 *     [[mirror]]                            # tried in order before the server
 *     url = "https://mirror.example/prefix"
 *     capabilities = ["pull", "resolve"]    # resolve: may say which digest a tag is
 *     override_path = false                 # true: the URL's path is used as it is, without /v2
 *     # ca, client_cert, client_key, skip_verify as above
 */
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { parse } from 'smol-toml';
import { z } from 'zod';

import { HerkosError, isErrno, messageOf } from '../../base/errors.js';
import { isRegistryHost } from '../../wire/oci/reference.js';
import { hostsFileBytesMax } from './settings.js';

const path = z.string().regex(/^\//, 'must be an absolute path');
const tlsKeys = {
  ca: z.union([path, z.array(path).max(64)]).default([]),
  client_cert: path.optional(),
  client_key: path.optional(),
  skip_verify: z.boolean().default(false),
};
const url = z.string().refine(isPlainUrl, 'must be an http or https URL without user, query and fragment');

const mirror = z.strictObject({
  url,
  capabilities: z
    .array(z.enum(['pull', 'resolve']))
    .min(1)
    .default(['pull', 'resolve']),
  override_path: z.boolean().default(false),
  ...tlsKeys,
});

const hostsFile = z.strictObject({
  server: url.optional(),
  plain_http: z.boolean().default(false),
  mirror: z.array(mirror).max(64).default([]),
  ...tlsKeys,
});

/** Trust and identity towards one host; contents, not paths. */
export interface TlsSettings {
  /** PEM texts trusted besides the system's roots. */
  readonly ca: readonly string[];
  readonly clientCert: string | undefined;
  readonly clientKey: string | undefined;
  readonly skipVerify: boolean;
}

export const defaultTls: TlsSettings = {
  ca: [],
  clientCert: undefined,
  clientKey: undefined,
  skipVerify: false,
};

export type Capability = 'pull' | 'resolve';

export interface MirrorSettings {
  readonly url: URL;
  readonly capabilities: ReadonlySet<Capability>;
  readonly overridePath: boolean;
  readonly tls: TlsSettings;
}

export interface HostSettings {
  readonly server: URL | undefined;
  readonly plainHttp: boolean;
  readonly tls: TlsSettings;
  readonly mirrors: readonly MirrorSettings[];
}

/**
 * The settings of `host[:port]`, or undefined when there are none.
 * @throws HerkosError `FailedPrecondition` that names the file, the key and what is wrong with it.
 */
export async function readHostSettings(directory: string, host: string): Promise<HostSettings | undefined> {
  if (!isRegistryHost(host)) return undefined;
  for (const name of [`${host}.toml`, '_default.toml']) {
    const file = join(directory, name);
    const text = await readText(file);
    if (text !== undefined) return parseHostSettings(text, file);
  }
  return undefined;
}

async function parseHostSettings(text: string, file: string): Promise<HostSettings> {
  let raw: unknown;
  try {
    raw = parse(text);
  } catch (error) {
    throw broken(`${file} is not valid TOML: ${messageOf(error)}`, error);
  }
  const result = hostsFile.safeParse(raw);
  if (!result.success) {
    const problems = result.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`);
    throw broken(`${file}: ${problems.join('; ')}`);
  }
  const data = result.data;
  const mirrors: MirrorSettings[] = [];
  for (const entry of data.mirror)
    mirrors.push({
      url: new URL(entry.url),
      capabilities: new Set(entry.capabilities),
      overridePath: entry.override_path,
      tls: await readTls(entry, file),
    });
  return {
    server: data.server === undefined ? undefined : new URL(data.server),
    plainHttp: data.plain_http,
    tls: await readTls(data, file),
    mirrors,
  };
}

type TlsKeys = Pick<z.infer<typeof mirror>, 'ca' | 'client_cert' | 'client_key' | 'skip_verify'>;

async function readTls(keys: TlsKeys, file: string): Promise<TlsSettings> {
  if ((keys.client_cert === undefined) !== (keys.client_key === undefined))
    throw broken(`${file}: client_cert and client_key belong together`);
  const load = async (name: string): Promise<string> => {
    try {
      return await readFile(name, 'utf8');
    } catch (error) {
      throw broken(`${file} names ${name}, which cannot be read: ${messageOf(error)}`, error);
    }
  };
  const paths = typeof keys.ca === 'string' ? [keys.ca] : keys.ca;
  return {
    ca: await Promise.all(paths.map(load)),
    clientCert: keys.client_cert === undefined ? undefined : await load(keys.client_cert),
    clientKey: keys.client_key === undefined ? undefined : await load(keys.client_key),
    skipVerify: keys.skip_verify,
  };
}

async function readText(file: string): Promise<string | undefined> {
  try {
    const handle = await open(file, 'r');
    try {
      const { size } = await handle.stat();
      if (size > hostsFileBytesMax) throw broken(`${file} is bigger than ${String(hostsFileBytesMax)} bytes`);
      return await handle.readFile('utf8');
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR')) return undefined;
    if (error instanceof HerkosError) throw error;
    throw broken(`${file} cannot be read: ${messageOf(error)}`, error);
  }
}

function isPlainUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const parsed = new URL(text);
  return (
    (parsed.protocol === 'https:' || parsed.protocol === 'http:') &&
    parsed.username === '' &&
    parsed.password === '' &&
    parsed.search === '' &&
    parsed.hash === ''
  );
}

function broken(message: string, cause?: unknown): HerkosError {
  return new HerkosError('FailedPrecondition', message, { reason: 'REGISTRY_CONFIG_INVALID', cause });
}

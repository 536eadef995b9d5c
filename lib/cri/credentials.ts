import type { RegistryCredentials } from '../image/ports.js';
import type { v1 } from './api.js';
import { invalid } from './checks.js';

/** Docker's old name for its registry, as it stands in credentials that people still have. */
const dockerAliases = new Set([
  'docker.io',
  'index.docker.io',
  'registry-1.docker.io',
  'registry.hub.docker.com',
]);

/**
 * The credentials of a pull, or undefined when there are none for this registry: those of another server
 * must not be shown to this one. They are neither kept nor logged (S7).
 */
export function decodeCredentials(
  auth: v1.AuthConfig.$Properties | null | undefined,
  registryHost: string,
): RegistryCredentials | undefined {
  if (!auth) return undefined;
  const server = auth.serverAddress ?? '';
  if (server !== '' && canonical(hostOf(server)) !== canonical(registryHost)) return undefined;
  const [username, password] = auth.username
    ? [auth.username, auth.password ?? '']
    : decodeBasic(auth.auth ?? '');
  const credentials = {
    username,
    password,
    identityToken: auth.identityToken ?? '',
    registryToken: auth.registryToken ?? '',
  };
  return Object.values(credentials).every((value) => value === '') ? undefined : credentials;
}

/** `user:password` in base64, as docker's config.json has it. */
function decodeBasic(auth: string): [string, string] {
  if (auth === '') return ['', ''];
  // Some tools pad with NULs.
  const text = Buffer.from(auth, 'base64').toString('utf8').replace(/\0+$/, '');
  const colon = text.indexOf(':');
  if (colon < 1) throw invalid('auth.auth is not the base64 form of user:password');
  return [text.slice(0, colon), text.slice(colon + 1)];
}

/** `https://host:port/v2/` and `host:port` alike. */
function hostOf(server: string): string {
  return server.replace(/^[a-z]+:\/\//i, '').split('/')[0] ?? '';
}

function canonical(host: string): string {
  const name = host.toLowerCase();
  return dockerAliases.has(name) ? 'docker.io' : name;
}

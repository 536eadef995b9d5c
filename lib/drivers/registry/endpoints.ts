import { defaultHost } from '../../wire/oci/reference.js';
import type { Capability, HostSettings, TlsSettings } from './hosts-file.js';
import { defaultTls } from './hosts-file.js';
import { isLoopback } from './proxy.js';

/** Where Docker Hub's API lives. */
const dockerHubServer = 'https://registry-1.docker.io';

/** One place that may answer requests for an image. */
export interface Endpoint {
  /** Ends with `/`; repository paths are appended. */
  readonly base: string;
  readonly tls: TlsSettings;
  readonly capabilities: ReadonlySet<Capability>;
  /** The request's credentials are for this place. */
  readonly credentials: boolean;
  /** The registry that a mirror answers for, sent as `?ns=`; '' at the registry itself. */
  readonly namespace: string;
  /** A registry on this machine may speak plain HTTP without being configured: HTTPS is tried first. */
  readonly plainFallback: boolean;
}

/** The places to ask for images of `host`, in order: mirrors first, the registry itself last. */
export function endpointsOf(host: string, settings: HostSettings | undefined): Endpoint[] {
  const server = serverOf(host, settings);
  const endpoints: Endpoint[] = (settings?.mirrors ?? []).map((mirror) => ({
    base: baseOf(mirror.url, mirror.overridePath),
    tls: mirror.tls,
    capabilities: mirror.capabilities,
    // A mirror on another host must never see what the client sent for this registry.
    credentials: mirror.url.origin === server.origin,
    namespace: mirror.url.host === server.host ? '' : host,
    plainFallback: false,
  }));
  endpoints.push({
    base: baseOf(server, false),
    tls: settings?.tls ?? defaultTls,
    capabilities: new Set<Capability>(['pull', 'resolve']),
    credentials: true,
    namespace: '',
    plainFallback: settings === undefined && isLoopback(server.hostname),
  });
  return endpoints;
}

function serverOf(host: string, settings: HostSettings | undefined): URL {
  if (settings?.server !== undefined) return settings.server;
  if (host === defaultHost) return new URL(dockerHubServer);
  return new URL(`${settings?.plainHttp === true ? 'http' : 'https'}://${host}`);
}

function baseOf(url: URL, overridePath: boolean): string {
  const path = url.pathname.replace(/\/+$/, '');
  return `${url.origin}${path}${overridePath || path.endsWith('/v2') ? '' : '/v2'}/`;
}

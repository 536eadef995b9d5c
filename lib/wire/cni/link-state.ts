/**
 * What the kernel has on one interface, read from iproute2's JSON (`ip -json -details`): the answer of
 * `address show dev X` and of `route show table all dev X`. It is the only full truth about what a
 * plugin did: calico's and ptp's routes are in no CNI result.
 */
import { bitsOf } from '../../base/ip.js';
import type { Address } from '../../model/network.js';
import { networkKey, parseCidr, parseIp } from './address.js';
import type { JsonObject } from './json.js';
import { asObject, bad, booleanAt, objectsAt, stringAt, uint32At } from './json.js';

export interface LinkState {
  readonly name: string;
  readonly mac: string;
  readonly mtu: number;
  /** `veth`, `macvlan`, …; empty for a physical device. */
  readonly kind: string;
  /** `ether` for everything that carries Ethernet frames. */
  readonly linkType: string;
  /** Interface flags, such as `UP` and `NOARP`. */
  readonly flags: ReadonlySet<string>;
  /** Addresses of global scope that a plugin set, in the kernel's order. */
  readonly addresses: readonly LinkAddress[];
  /** Unicast routes of the main table that do not come from an address or a router advertisement. */
  readonly routes: readonly LinkRoute[];
}

export interface LinkAddress extends Address {
  /** The network of the address is on the link; some plugins take that route away. */
  readonly connected: boolean;
}

export interface LinkRoute {
  readonly destination: Address;
  readonly gateway?: string;
  readonly onLink: boolean;
  readonly metric?: number;
  readonly mtu?: number;
  readonly advertisedMss?: number;
}

const linkEntriesMax = 4096;
/** What the kernel gives an IPv6 route that has none. */
const v6MetricDefault = 1024;

/**
 * Reads the two JSON arrays that `ip -json -details -batch` prints, one a line.
 * @throws HerkosError `InvalidArgument` when the output is something else
 */
export function parseLinkState(output: string): LinkState {
  const what = 'the output of ip';
  const [links, routes] = output
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => parseLine(line, what));
  // A filter that matches nothing prints empty objects before the real one in some versions.
  const link = objectsAt({ links }, 'links', what, linkEntriesMax).find((item) => 'ifname' in item);
  if (link === undefined) throw bad(`${what} names no interface`);
  const all = objectsAt({ routes }, 'routes', what, linkEntriesMax).filter(isMainUnicast);
  const info = link['linkinfo'] === undefined ? {} : asObject(link['linkinfo'], what);
  return {
    name: required(stringAt(link, 'ifname', what), 'ifname', what),
    mac: required(stringAt(link, 'address', what), 'address', what),
    mtu: required(uint32At(link, 'mtu', what), 'mtu', what),
    kind: stringAt(info, 'info_kind', what) ?? '',
    linkType: stringAt(link, 'link_type', what) ?? '',
    flags: flagsOf(link),
    addresses: addressesOf(link, all, what),
    routes: all.filter(isConfigured).map((item) => routeFrom(item, what)),
  };
}

function parseLine(line: string, what: string): unknown {
  try {
    return JSON.parse(line);
  } catch (error) {
    throw bad(`${what} is not JSON`, error);
  }
}

function addressesOf(link: JsonObject, routes: readonly JsonObject[], what: string): LinkAddress[] {
  return (
    objectsAt(link, 'addr_info', what, linkEntriesMax)
      .filter((item) => 'local' in item && item['scope'] === 'global')
      // A guest makes its own addresses from router advertisements; those of the namespace are not CNI's.
      .filter((item) => !booleanAt(item, 'dynamic', what) && !booleanAt(item, 'temporary', what))
      .map((item) => {
        const ip = parseIp(required(stringAt(item, 'local', what), 'local', what), what);
        const prefixLength = required(uint32At(item, 'prefixlen', what), 'prefixlen', what);
        const connected = prefixLength === bitsOf(ip) || hasConnectedRoute(routes, item, ip);
        return { ip, prefixLength, connected };
      })
  );
}

function hasConnectedRoute(routes: readonly JsonObject[], address: JsonObject, ip: string): boolean {
  const length = Number(address['prefixlen']);
  return routes.some((route) => {
    if (route['protocol'] !== 'kernel' || typeof route['dst'] !== 'string') return false;
    const network = destinationOf(route['dst'], ip, 'the output of ip');
    return networkKey(network) === networkKey({ ip, prefixLength: length });
  });
}

function routeFrom(item: JsonObject, what: string): LinkRoute {
  const hop = objectsAt(item, 'nexthops', what, linkEntriesMax)[0] ?? item;
  const via = item['via'] === undefined ? undefined : stringAt(asObject(item['via'], what), 'host', what);
  const gateway = stringAt(hop, 'gateway', what) ?? via;
  const dst = required(stringAt(item, 'dst', what), 'dst', what);
  const isV6 = item['pref'] !== undefined;
  const metric = uint32At(item, 'metric', what);
  const metrics = objectsAt(item, 'metrics', what, linkEntriesMax)[0] ?? {};
  const mtu = uint32At(metrics, 'mtu', what);
  const advertisedMss = uint32At(metrics, 'advmss', what);
  return {
    destination: destinationOf(dst, gateway ?? (isV6 ? '::' : '0.0.0.0'), what),
    ...(gateway === undefined ? {} : { gateway: parseIp(gateway, what) }),
    onLink: flagsOf(hop).has('onlink'),
    ...(metric === undefined || metric === 0 || (isV6 && metric === v6MetricDefault) ? {} : { metric }),
    ...(mtu === undefined ? {} : { mtu }),
    ...(advertisedMss === undefined ? {} : { advertisedMss }),
  };
}

/** `default` has no family of its own; it has that of `familyOf`. */
function destinationOf(dst: string, familyOf: string, what: string): Address {
  if (dst !== 'default') return parseCidr(dst, what);
  return { ip: familyOf.includes(':') ? '::' : '0.0.0.0', prefixLength: 0 };
}

function isMainUnicast(route: JsonObject): boolean {
  return (
    (route['type'] === undefined || route['type'] === 'unicast') &&
    (route['table'] === undefined || route['table'] === 'main')
  );
}

/** Not made by the kernel for an address, nor by a router advertisement or a redirect. */
function isConfigured(route: JsonObject): boolean {
  return !['kernel', 'ra', 'redirect'].includes(String(route['protocol']));
}

function flagsOf(item: JsonObject): ReadonlySet<string> {
  const flags: unknown = item['flags'];
  return new Set(Array.isArray(flags) ? flags.filter((flag) => typeof flag === 'string') : []);
}

function required<T>(value: T | undefined, key: string, what: string): T {
  if (value === undefined) throw bad(`${what} lacks ${key}`);
  return value;
}

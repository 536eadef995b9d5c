/**
 * From what CNI answered and what the kernel shows in the namespace to what the guest must show.
 *
 * The guest takes the place of the namespace's own network stack, so it gets what that stack had:
 * - addresses in the order of the result (the first is the pod's primary one), then those that only
 *   the kernel knows;
 * - an address whose network a plugin took off the link (ptp) becomes a host address: the guest's
 *   kernel would otherwise look for neighbours that nobody answers for;
 * - the kernel's routes, then those of the result that the kernel lacks;
 * - on-link routes before the routes whose gateway they reach (calico: `169.254.1.1` on the link, then
 *   the default route through it).
 */
import { bitsOf } from '../../base/ip.js';
import type { Address, GuestInterface, NetworkAttachment, Route } from '../../model/network.js';
import { contains, isLinkLocalV6, isV4, networkKey, sameIp } from './address.js';
import { bad } from './json.js';
import type { LinkState } from './link-state.js';
import type { CniIp, CniResult, CniRoute } from './result.js';

const scopeLink = 253;
const mtuMin = 68;

/**
 * The attachment of one sandbox interface.
 * @throws HerkosError `InvalidArgument` when no address is left for it
 */
export function attachmentFrom(result: CniResult, link: LinkState): NetworkAttachment {
  const own = ipsOf(result, link.name);
  const addresses = addressesFrom(own, link);
  if (addresses.length === 0)
    throw bad(
      `the CNI plugins gave ${link.name} no address; check the ipam section of the network configuration`,
    );
  if (link.mtu < mtuMin) throw bad(`${link.name} has an MTU of ${String(link.mtu)} bytes`);
  const guest: GuestInterface = {
    name: link.name,
    mac: link.mac.toLowerCase(),
    mtu: link.mtu,
    addresses,
    routes: routesFrom(result, own, link, addresses),
  };
  return { ips: addresses.map((address) => address.ip), interfaces: [guest] };
}

/** The addresses of `ifName` in the sandbox; an address that names no interface belongs to it. */
function ipsOf(result: CniResult, ifName: string): CniIp[] {
  return result.ips.filter((ip) => {
    if (ip.interface === undefined) return true;
    const owner = result.interfaces[ip.interface];
    return owner?.name === ifName && owner.sandbox !== undefined;
  });
}

function addressesFrom(own: readonly CniIp[], link: LinkState): Address[] {
  const out: Address[] = [];
  for (const { address } of own) {
    if (out.some((known) => sameIp(known.ip, address.ip))) continue;
    const seen = link.addresses.find((candidate) => sameIp(candidate.ip, address.ip));
    out.push(seen === undefined ? address : hostAddressUnlessConnected(seen));
  }
  for (const seen of link.addresses)
    if (!out.some((known) => sameIp(known.ip, seen.ip))) out.push(hostAddressUnlessConnected(seen));
  return out;
}

function hostAddressUnlessConnected(address: LinkState['addresses'][number]): Address {
  return {
    ip: address.ip,
    prefixLength: address.connected ? address.prefixLength : bitsOf(address.ip),
  };
}

function routesFrom(
  result: CniResult,
  own: readonly CniIp[],
  link: LinkState,
  addresses: readonly Address[],
): Route[] {
  const routes: Route[] = link.routes.map(({ destination, ...rest }) => ({
    ...rest,
    destination: cidr(destination),
  }));
  const known = new Set(link.routes.map((route) => networkKey(route.destination)));
  for (const route of result.routes) {
    const key = networkKey(route.destination);
    // Routes of other tables need rules that the guest does not get; see docs/network.md.
    if (known.has(key) || route.table !== undefined) continue;
    const added = fromResult(route, own);
    // Without a gateway in a network of its own address it says what the address says already.
    if (added.gateway === undefined && addresses.some((address) => networkKey(address) === key)) continue;
    if (!addresses.some((address) => isV4(address.ip) === isV4(route.destination.ip))) continue;
    known.add(key);
    routes.push(added);
  }
  const onTheLink = routes.filter((route) => route.gateway === undefined);
  const through = routes.filter((route) => route.gateway !== undefined);
  const reachable = [...addresses, ...onTheLink.map((route) => toAddress(route.destination))];
  return [...onTheLink, ...through.map((route) => markOnLink(route, reachable))];
}

/** A route without a gateway goes through the gateway of the address of its family (CNI, section 5), unless it is on the link. */
function fromResult(route: CniRoute, own: readonly CniIp[]): Route {
  const implied =
    route.scope === scopeLink
      ? undefined
      : own.find((ip) => ip.gateway !== undefined && isV4(ip.gateway) === isV4(route.destination.ip))
          ?.gateway;
  const gateway = route.gateway ?? implied;
  return {
    destination: cidr(route.destination),
    ...(gateway === undefined ? {} : { gateway }),
    onLink: false,
    ...(route.mtu === undefined ? {} : { mtu: route.mtu }),
    ...(route.priority === undefined ? {} : { metric: route.priority }),
    ...(route.advertisedMss === undefined ? {} : { advertisedMss: route.advertisedMss }),
  };
}

/** The kernel refuses a gateway that no address or on-link route covers, unless told that it is on the link. */
function markOnLink(route: Route, reachable: readonly Address[]): Route {
  const gateway = route.gateway;
  if (gateway === undefined || route.onLink || isLinkLocalV6(gateway)) return route;
  return reachable.some((network) => network.prefixLength > 0 && contains(network, gateway))
    ? route
    : { ...route, onLink: true };
}

function cidr(address: Address): string {
  return `${address.ip}/${String(address.prefixLength)}`;
}

function toAddress(destination: string): Address {
  const [ip = '', length] = destination.split('/');
  return { ip, prefixLength: Number(length) };
}

/** Small arithmetic on IP addresses and CIDRs, as text. */
import { isIP, isIPv4 } from 'node:net';

import { bitsOf, toNumber } from '../../base/ip.js';
import type { Address } from '../../model/network.js';
import { bad } from './json.js';

/** `10.1.2.3/16` → address and prefix length. @throws HerkosError `InvalidArgument` */
export function parseCidr(text: string, what: string): Address {
  const slash = text.indexOf('/');
  const ip = slash === -1 ? text : text.slice(0, slash);
  const family = isIP(ip);
  const prefixText = slash === -1 ? undefined : text.slice(slash + 1);
  const prefixLength = prefixText === undefined ? bitsOf(ip) : Number(prefixText);
  // A zone (`fe80::1%eth0`) passes isIP but means nothing in the guest.
  if (family === 0 || ip.includes('%') || !/^\d{1,3}$/.test(prefixText ?? '0') || prefixLength > bitsOf(ip))
    throw bad(`${what}: '${text}' is not an address with a prefix length`);
  return { ip, prefixLength };
}

/** @throws HerkosError `InvalidArgument` */
export function parseIp(text: string, what: string): string {
  if (isIP(text) === 0 || text.includes('%')) throw bad(`${what}: '${text}' is not an IP address`);
  return text;
}

export function isV4(ip: string): boolean {
  return isIPv4(ip);
}

/** True when both are of one family and `inner` lies in the network of `outer`. */
export function contains(outer: Address, inner: string): boolean {
  if (isV4(outer.ip) !== isV4(inner)) return false;
  const shift = BigInt(bitsOf(inner) - outer.prefixLength);
  return toNumber(outer.ip) >> shift === toNumber(inner) >> shift;
}

/** Equal for equal networks, however they are spelt: host bits and IPv6 abbreviations do not count. */
export function networkKey(network: Address): string {
  const shift = BigInt(bitsOf(network.ip) - network.prefixLength);
  const family = isV4(network.ip) ? '4' : '6';
  return `${family}:${((toNumber(network.ip) >> shift) << shift).toString(16)}/${String(network.prefixLength)}`;
}

export function sameIp(a: string, b: string): boolean {
  return isV4(a) === isV4(b) && toNumber(a) === toNumber(b);
}

export function isLinkLocalV6(ip: string): boolean {
  return !isV4(ip) && toNumber(ip) >> 118n === 0xfe80n >> 6n;
}

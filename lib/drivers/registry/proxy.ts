import { BlockList, isIP } from 'node:net';

import type { ProxySettings } from './settings.js';

/** True for a host name or literal address that never leaves this machine. */
export function isLoopback(hostname: string): boolean {
  const name = bareHost(hostname);
  if (name === 'localhost' || name.endsWith('.localhost')) return true;
  switch (isIP(name)) {
    case 4:
      return loopback.check(name, 'ipv4');
    case 6:
      return loopback.check(name, 'ipv6');
    default:
      return false;
  }
}

/** True for a literal link-local address: metadata services of clouds live there. */
export function isLinkLocal(hostname: string): boolean {
  const name = bareHost(hostname);
  const family = isIP(name);
  return family !== 0 && linkLocal.check(name, family === 4 ? 'ipv4' : 'ipv6');
}

/** True when a host out there sends us into this machine or its link: to what only listens there. */
export function leadsInside(from: string, to: string): boolean {
  return from !== to && !isLoopback(from) && (isLoopback(to) || isLinkLocal(to));
}

/** The proxy to use for `url`, or undefined to go there directly. Loopback is always direct. */
export function proxyFor(url: URL, settings: ProxySettings): string | undefined {
  const proxy = url.protocol === 'https:' ? settings.httpsProxy : settings.httpProxy;
  if (proxy === undefined || isLoopback(url.hostname)) return undefined;
  const port = url.port === '' ? (url.protocol === 'https:' ? '443' : '80') : url.port;
  const host = bareHost(url.hostname);
  for (const part of settings.noProxy.split(',')) {
    if (exempts(part.trim().toLowerCase(), host, port)) return undefined;
  }
  return proxy;
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');
loopback.addSubnet('::ffff:127.0.0.0', 104, 'ipv6');
const linkLocal = new BlockList();
linkLocal.addSubnet('169.254.0.0', 16, 'ipv4');
linkLocal.addSubnet('fe80::', 10, 'ipv6');
linkLocal.addSubnet('::ffff:169.254.0.0', 112, 'ipv6');

function bareHost(hostname: string): string {
  return hostname.replace(/^\[(.*)\]$/, '$1').toLowerCase();
}

/** One entry of NO_PROXY: `*`, a CIDR, an address, a domain with or without leading dot, each with an optional port. */
function exempts(entry: string, host: string, port: string): boolean {
  if (entry === '') return false;
  if (entry === '*') return true;
  const [network = '', prefix] = entry.split('/');
  if (prefix !== undefined) return inSubnet(host, network, Number(prefix));
  const match = /^(?<name>\[[^\]]+\]|[^:]+):(?<port>\d+)$/.exec(entry);
  if (match?.groups?.['port'] !== undefined && match.groups['port'] !== port) return false;
  const name = bareHost(match?.groups?.['name'] ?? entry);
  if (name === host) return true;
  const domain = name.replace(/^\*?\./, '');
  return isIP(host) === 0 && (domain === host || host.endsWith(`.${domain}`));
}

function inSubnet(host: string, network: string, prefix: number): boolean {
  const family = isIP(network);
  if (family === 0 || isIP(host) !== family || !Number.isInteger(prefix)) return false;
  if (prefix < 0 || prefix > (family === 4 ? 32 : 128)) return false;
  const list = new BlockList();
  const name = family === 4 ? 'ipv4' : 'ipv6';
  list.addSubnet(network, prefix, name);
  return list.check(host, name);
}

/** The files by which a pod's containers know names: /etc/hosts and /etc/resolv.conf. */
import { open } from 'node:fs/promises';

import { isErrno } from '../base/errors.js';
import { KIB } from '../base/units.js';
import type { DnsConfig } from '../model/sandbox.js';

const resolvConfBytesMax = 64 * KIB;
/** Where systemd-resolved keeps the servers that it asks itself; /etc/resolv.conf then names only 127.0.0.53. */
const systemdResolvConf = '/run/systemd/resolve/resolv.conf';

/** The first name of an address is the canonical one. */
export function hostsFile(hostname: string, ips: readonly string[]): string {
  const lines = [
    '127.0.0.1\tlocalhost',
    '::1\tlocalhost ip6-localhost ip6-loopback',
    'fe00::0\tip6-localnet',
    'ff00::0\tip6-mcastprefix',
    'ff02::1\tip6-allnodes',
    'ff02::2\tip6-allrouters',
    ...ips.map((ip) => `${ip}\t${hostname}`),
  ];
  return `${lines.join('\n')}\n`;
}

/** resolv.conf(5) from a DNS configuration; undefined when that says nothing, which means "the node's". */
export function resolvConfOf(dns: DnsConfig | undefined): string | undefined {
  if (dns === undefined || dns.servers.length + dns.searches.length + dns.options.length === 0)
    return undefined;
  const lines = [
    ...(dns.searches.length === 0 ? [] : [`search ${dns.searches.join(' ')}`]),
    ...dns.servers.map((server) => `nameserver ${server}`),
    ...(dns.options.length === 0 ? [] : [`options ${dns.options.join(' ')}`]),
  ];
  return `${lines.join('\n')}\n`;
}

/** The node's own configuration as a pod can use it; empty when the node has none. */
export async function nodeResolvConf(path: string): Promise<string> {
  const own = withoutLoopback(await readSmall(path));
  if (/^nameserver/m.test(own)) return own;
  const systemd = withoutLoopback(await readSmall(systemdResolvConf));
  return /^nameserver/m.test(systemd) ? systemd : own;
}

/** A resolver on the node's loopback cannot be reached from a VM: leaving it in would only cost time-outs. */
export function withoutLoopback(text: string): string {
  return text
    .split('\n')
    .filter((line) => !/^\s*nameserver\s+(127\.|::1(?:\s|$)|0:0:0:0:0:0:0:1(?:\s|$))/.test(line))
    .join('\n');
}

async function readSmall(path: string): Promise<string> {
  try {
    const file = await open(path, 'r');
    try {
      const buffer = Buffer.alloc(resolvConfBytesMax);
      const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
      return buffer.toString('utf8', 0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return '';
    throw error;
  }
}

/** A name that the guest's kernel takes: the pod's, made short enough. */
export function hostnameOf(config: {
  readonly hostname: string;
  readonly metadata: { readonly name: string };
}): string {
  const wanted = config.hostname === '' ? config.metadata.name : config.hostname;
  return wanted.slice(0, hostnameBytesMax).replace(/[-.]+$/, '');
}

/** HOST_NAME_MAX of Linux. */
const hostnameBytesMax = 64;

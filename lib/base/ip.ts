/** IP addresses as numbers. Texts are addresses as `net.isIP` takes them. */
import { SocketAddress, isIPv4 } from 'node:net';

/** Prefix length of a single host: 32 or 128. */
export function bitsOf(ip: string): number {
  return isIPv4(ip) ? 32 : 128;
}

/** The address as a number, whatever its spelling. */
export function toNumber(ip: string): bigint {
  if (isIPv4(ip)) return ip.split('.').reduce((sum, part) => (sum << 8n) | BigInt(part), 0n);
  return v6Groups(ip).reduce((sum, group) => (sum << 16n) | BigInt(group), 0n);
}

/** The network's own address: all bits behind the prefix are 0. IPv6 in its short form. */
export function networkAddress(ip: string, prefixLength: number): string {
  const shift = BigInt(bitsOf(ip) - prefixLength);
  const network = (toNumber(ip) >> shift) << shift;
  if (isIPv4(ip)) return [24n, 16n, 8n, 0n].map((at) => String((network >> at) & 0xffn)).join('.');
  const groups = network
    .toString(16)
    .padStart(32, '0')
    .replaceAll(/(.{4})(?!$)/g, '$1:');
  return new SocketAddress({ address: groups, family: 'ipv6' }).address;
}

function v6Groups(ip: string): number[] {
  // A dotted tail (`::ffff:10.0.0.1`) is two groups.
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(ip);
  const plain =
    dotted === null
      ? ip
      : `${dotted[1] ?? ''}${(toNumber(dotted[2] ?? '') >> 16n).toString(16)}:${(toNumber(dotted[2] ?? '') & 0xffffn).toString(16)}`;
  const [head = '', tail] = plain.split('::');
  const left = groupsOf(head);
  if (tail === undefined) return left;
  const right = groupsOf(tail);
  return [...left, ...Array<number>(8 - left.length - right.length).fill(0), ...right];
}

function groupsOf(text: string): number[] {
  return text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16));
}

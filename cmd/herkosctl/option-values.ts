/** Values of options. Commander tells what InvalidArgumentError says, and the command line counts as wrong. */
import { InvalidArgumentError } from 'commander';
import Long from 'long';

import { messageOf } from '../../lib/base/errors.js';
import { parseBytes } from '../../lib/base/units.js';
import { v1 } from '../../lib/cri/api.js';
import { WrongUsage } from './exit-codes.js';

const portMax = 65_535;
const protocols: Readonly<Record<string, v1.Protocol>> = {
  tcp: v1.Protocol.TCP,
  udp: v1.Protocol.UDP,
  sctp: v1.Protocol.SCTP,
};

export function collect(value: string, before: readonly string[]): string[] {
  return [...before, value];
}

export function wholeNumber(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('write a whole number');
  return Number(text);
}

export function positiveNumber(text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new InvalidArgumentError('write a number above 0');
  return value;
}

/** `512MiB` in bytes. */
export function size(text: string): number {
  try {
    return parseBytes(text);
  } catch (error) {
    throw new InvalidArgumentError(messageOf(error));
  }
}

/** `[ip:]host:container[/protocol]`; an IPv6 address stands in brackets. */
export function portMappings(
  text: string,
  before: readonly v1.PortMapping.$Properties[],
): v1.PortMapping.$Properties[] {
  const match = /^(?:(\[[0-9a-fA-F:.]+\]|[0-9.]+):)?(\d{1,5}):(\d{1,5})(?:\/(tcp|udp|sctp))?$/.exec(text);
  if (match === null) throw new InvalidArgumentError('write [ip:]port-of-the-node:port-of-the-pod[/udp]');
  const [, ip = '', host, inside, protocol = 'tcp'] = match;
  const mapping = {
    hostIp: ip.replaceAll(/[[\]]/g, ''),
    hostPort: Number(host),
    containerPort: Number(inside),
    protocol: protocols[protocol] ?? v1.Protocol.TCP,
  };
  if (mapping.hostPort > portMax || mapping.containerPort > portMax)
    throw new InvalidArgumentError(`ports go up to ${String(portMax)}`);
  return [...before, mapping];
}

/** A number, or a name that the image knows; `user:group` with numbers. */
export function user(text: string): v1.LinuxContainerSecurityContext.$Properties {
  const [name = '', group] = text.split(':');
  if (group !== undefined && !/^\d+$/.test(group))
    throw new InvalidArgumentError('the group must be a number');
  return {
    ...(/^\d+$/.test(name) ? { runAsUser: { value: Long.fromString(name) } } : { runAsUsername: name }),
    ...(group === undefined ? {} : { runAsGroup: { value: Long.fromString(group) } }),
  };
}

export interface Credentials {
  readonly username: string;
  readonly password: string;
}

const noCredentials: Credentials = { username: '', password: '' };

/** Of `--creds`. @throws WrongUsage, which keeps what may be a password to itself */
export function credentials(text: string): Credentials {
  return parseCredentials(text, '--creds');
}

/** Of HERKOS_CREDS, which keeps them out of the process list. @throws WrongUsage */
export function environmentCredentials(): Credentials {
  return parseCredentials(process.env['HERKOS_CREDS'] ?? '', 'HERKOS_CREDS');
}

/** `user:password`, as other tools take it; a password may hold colons. */
function parseCredentials(text: string, source: string): Credentials {
  if (text === '') return noCredentials;
  const colon = text.indexOf(':');
  if (colon < 1) throw new WrongUsage('InvalidArgument', `${source}: write user:password`);
  return { username: text.slice(0, colon), password: text.slice(colon + 1) };
}

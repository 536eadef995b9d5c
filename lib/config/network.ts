import { isIP } from 'node:net';

import { z } from 'zod';

import { bitsOf, networkAddress, toNumber } from '../base/ip.js';
import { absolutePath } from './values.js';

/** The plugin that gives out addresses keeps the first and the last of a subnet, and needs some between them. */
const hostBitsMin = 2;

const subnet = z.string().superRefine((text, context) => {
  const message = subnetProblem(text);
  if (message !== undefined) context.addIssue({ code: 'custom', message });
});

/** `[network]`: CNI. */
export const networkSection = z.strictObject({
  conf_dir: absolutePath.default('/etc/cni/net.d'),
  bin_dirs: z.array(absolutePath).min(1).default(['/opt/cni/bin', '/usr/lib/cni']),
  /**
   * Use the built-in network while conf_dir holds no configuration. Switch it off where a network add-on
   * will bring one: pods that start before it would be on another network for good.
   */
  built_in: z.boolean().default(true),
  default_bridge: z
    .string()
    .regex(/^[A-Za-z][\w.-]{0,14}$/, 'an interface name has at most 15 characters')
    .default('herkos0'),
  /** One of each address family at most; away from what other networks on nodes take by themselves. */
  default_subnets: z.array(subnet).min(1).max(2).default(['10.219.0.0/16', 'fd68:6572:6b6f:1::/64']),
  /** No other runtime uses these networks on this node: then CNI GC may be called, which takes all other addresses. */
  sole_runtime: z.boolean().default(false),
});

/** What is wrong, and what to write instead; undefined: it is the subnet's own address and a length. */
function subnetProblem(text: string): string | undefined {
  const [ip = '', length, ...rest] = text.split('/');
  const family = isIP(ip);
  // A zone (`fe80::1%eth0`) passes isIP.
  if (family === 0 || ip.includes('%') || rest.length > 0)
    return `'${text}' is not a subnet; write for example 10.219.0.0/16 or fd68:6572:6b6f:1::/64`;
  const usual = family === 4 ? 24 : 64;
  const example = `write for example ${networkAddress(ip, usual)}/${String(usual)}`;
  if (length === undefined) return `'${text}' lacks the length of its prefix; ${example}`;
  const lengthMax = bitsOf(ip) - hostBitsMin;
  if (!/^[1-9]\d{0,2}$/.test(length) || Number(length) > lengthMax)
    return `'${text}' needs a prefix of 1 to ${String(lengthMax)} bits; ${example}`;
  const network = networkAddress(ip, Number(length));
  if (toNumber(network) !== toNumber(ip))
    return `'${text}' is an address in a subnet, not the subnet; write ${network}/${length}`;
  return undefined;
}

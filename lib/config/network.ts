import { z } from 'zod';

import { absolutePath } from './values.js';

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
  default_subnets: z
    .array(z.union([z.cidrv4(), z.cidrv6()]))
    .min(1)
    .max(2)
    .default(['10.219.0.0/16', 'fd68:6572:6b6f:1::/64']),
  /** No other runtime uses these networks on this node: then CNI GC may be called, which takes all other addresses. */
  sole_runtime: z.boolean().default(false),
});

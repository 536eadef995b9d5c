import { z } from 'zod';

import { absolutePath } from './values.js';

/** `[network]`: CNI. */
export const networkSection = z.strictObject({
  conf_dir: absolutePath.default('/etc/cni/net.d'),
  bin_dirs: z.array(absolutePath).min(1).default(['/opt/cni/bin', '/usr/lib/cni']),
  /** The built-in network, used only while conf_dir holds no configuration. */
  default_bridge: z
    .string()
    .regex(/^[A-Za-z][\w.-]{0,14}$/, 'an interface name has at most 15 characters')
    .default('herkos0'),
  default_subnet: z.cidrv4().default('10.88.0.0/16'),
});

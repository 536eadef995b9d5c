import { z } from 'zod';

import { bytes, seconds } from './values.js';

/** `[pod]`: pods and their containers. */
export const podSection = z.strictObject({
  /** Size limit of a container's writable layer; the file grows as it is used. */
  writable_layer: bytes.default(10 * 1024 ** 3),
  /** Size of the /dev/shm that a pod's containers share. */
  shm: bytes.default(64 * 1024 ** 2),
  /** Pods that start at a time; 0: two for each processor of the node. */
  starts_at_a_time: z.number().int().min(0).max(1000).default(0),
  /** How long a guest may take over one request before it counts as hung. */
  guest_timeout_seconds: seconds.default(60),
});

import { z } from 'zod';

import { GIB, KIB, MIB } from '../base/units.js';
import { diskBytesMax, diskBytesMin } from '../model/writable-disk.js';
import { bytesWithin, seconds } from './values.js';

/** A page: tmpfs has no smaller size, and 0 means the default to the guest. */
const shmBytesMin = 4 * KIB;

/** `[pod]`: pods and their containers. */
export const podSection = z.strictObject({
  /** Size limit of a container's writable layer; the file grows as it is used. */
  writable_layer: bytesWithin(diskBytesMin, diskBytesMax).default(10 * GIB),
  /** Size of the /dev/shm that a pod's containers share. */
  shm: bytesWithin(shmBytesMin).default(64 * MIB),
  /** Pods that start at a time; 0: two for each processor of the node. */
  starts_at_a_time: z.number().int().min(0).max(1000).default(0),
  /** How long a guest may take over one request before it counts as hung. */
  guest_timeout_seconds: seconds.default(60),
});

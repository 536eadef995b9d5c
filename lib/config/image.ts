import { z } from 'zod';

import { MIB } from '../base/units.js';
import { absolutePath, bytesWithin, positiveInt, seconds } from './values.js';

/** `[image]`: pulling and keeping images. */
export const imageSection = z.strictObject({
  /** One TOML file per registry host: mirrors, TLS, plain HTTP. */
  registries_dir: absolutePath.default('/etc/herkos/registries.d'),
  layers_at_a_time: positiveInt.max(32).default(3),
  /** Given up when not one byte arrives for so long; then resumed, then an error. */
  stall_timeout_seconds: seconds.default(30),
  /** A layer that unpacks to more is refused. */
  layer_bytes_max: bytesWithin(MIB).default(64 * 1024 ** 3),
  /** A layer with more files is refused. */
  layer_entries_max: positiveInt.default(4_000_000),
});

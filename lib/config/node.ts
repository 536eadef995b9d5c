import { resolve } from 'node:path';

import { z } from 'zod';

import { logFormats, logLevels } from '../base/logger.js';
import { absolutePath } from './values.js';

/** Short: it becomes part of names with narrow limits (interfaces, unix socket paths). */
const instancePattern = /^[a-z][a-z0-9]{0,19}$/;

/** Where set-up builds cmd/herkos-host, seen from this file when it is compiled. */
const hostHelperBeside = resolve(
  import.meta.dirname,
  '../../../cmd/herkos-host/target/x86_64-unknown-linux-gnu/release/herkos-host',
);

/** The program `herkos-host`. */
export function hostHelperOf(node: { readonly host_helper: string }): string {
  return node.host_helper === '' ? hostHelperBeside : node.host_helper;
}

/** `[node]`: names and places of this daemon. */
export const nodeSection = z.strictObject({
  /** Prefix of everything the daemon makes on the node; two daemons on one node need two. */
  instance: z
    .string()
    .regex(instancePattern, 'write 1 to 20 of a-z and 0-9, beginning with a letter')
    .default('herkos'),
  socket: absolutePath.default('/run/herkos/herkos.sock'),
  state_dir: absolutePath.default('/var/lib/herkos'),
  run_dir: absolutePath.default('/run/herkos'),
  /** The program `herkos-host`; empty: beside the daemon's own. */
  host_helper: z.union([absolutePath, z.literal('')]).default(''),
  log_level: z.enum(logLevels).default('info'),
  log_format: z.enum(logFormats).default('text'),
  /** The syntax of cgroup parents; `auto` takes systemd where it runs. Must equal the kubelet's. */
  cgroup_driver: z.enum(['auto', 'systemd', 'cgroupfs']).default('auto'),
});

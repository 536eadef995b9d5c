/** The directories that are the daemon's own. */
import { mkdir, realpath } from 'node:fs/promises';

import type { Config } from '../../lib/config/load.js';

/** Passable by VM processes, which reach the files they may read; not listable by them. */
const directoryMode = 0o711;

/**
 * Makes them. @returns the configuration with their true paths: the kernel knows mounts below them by no other,
 * and a link such as /var/run would hide them
 */
export async function prepareDirectories(config: Config): Promise<Config> {
  const { node } = config;
  const made = async (directory: string): Promise<string> => {
    await mkdir(directory, { recursive: true, mode: directoryMode });
    return realpath(directory);
  };
  return {
    ...config,
    node: { ...node, state_dir: await made(node.state_dir), run_dir: await made(node.run_dir) },
  };
}

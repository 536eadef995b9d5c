import { readFile } from 'node:fs/promises';

import { parse } from 'smol-toml';
import { z } from 'zod';

import { HerkosError, isErrno, messageOf } from '../base/errors.js';
import { imageSection } from './image.js';
import { metricsSection } from './metrics.js';
import { networkSection } from './network.js';
import { nodeSection } from './node.js';
import { podSection } from './pod.js';
import { vmSection } from './vm.js';

export const defaultConfigPath = '/etc/herkos/herkosd.toml';

const schema = z.strictObject({
  node: nodeSection.prefault({}),
  vm: vmSection.prefault({}),
  image: imageSection.prefault({}),
  network: networkSection.prefault({}),
  pod: podSection.prefault({}),
  metrics: metricsSection.prefault({}),
});

export type Config = z.infer<typeof schema>;

/**
 * Reads the configuration. A file that was not asked for by name may be missing: the defaults work.
 * @param path undefined: `/etc/herkos/herkosd.toml` if it is there.
 * @throws HerkosError `InvalidArgument` that names the file, the key and what is wrong with it.
 */
export async function loadConfig(path?: string): Promise<Config> {
  let text = '';
  try {
    text = await readFile(path ?? defaultConfigPath, 'utf8');
  } catch (error) {
    if (path !== undefined || !isErrno(error, 'ENOENT'))
      throw new HerkosError('InvalidArgument', `cannot read the configuration: ${messageOf(error)}`, {
        cause: error,
      });
  }
  return parseConfig(text, path ?? defaultConfigPath);
}

/** The same from text; `source` names it in errors. */
export function parseConfig(text: string, source: string): Config {
  let raw: unknown;
  try {
    raw = parse(text);
  } catch (error) {
    throw new HerkosError('InvalidArgument', `${source} is not valid TOML: ${messageOf(error)}`, {
      cause: error,
    });
  }
  const result = schema.safeParse(raw);
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue) => `${keyOf(issue)}: ${issue.message}`);
  throw new HerkosError('InvalidArgument', `${source}: ${problems.join('; ')}`);
}

function keyOf(issue: z.core.$ZodIssue): string {
  return issue.path.length === 0 ? 'the file' : issue.path.join('.');
}

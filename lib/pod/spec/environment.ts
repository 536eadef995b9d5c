import { HerkosError } from '../../base/errors.js';
import type { ContainerConfig } from '../../model/container.js';
import { refuseNul } from './entrypoint.js';

const defaultPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * `KEY=value` in order of first appearance: the runtime's own, then the image's, then the container's;
 * a later one of the same key replaces the value in place.
 * @throws InvalidArgument for a key that cannot be one, and for bytes that config.json cannot carry
 */
export function environmentOf(
  config: Pick<ContainerConfig, 'envs' | 'tty'>,
  imageEnv: readonly string[],
  hostname: string,
): string[] {
  const values = new Map<string, string>([
    ['PATH', defaultPath],
    ['HOSTNAME', hostname],
  ]);
  if (config.tty) values.set('TERM', 'xterm');
  for (const entry of imageEnv) {
    const split = entry.indexOf('=');
    // Docker's rule: an image's entry without a value names a variable to drop.
    if (split === -1) values.delete(entry);
    else if (split > 0) values.set(entry.slice(0, split), entry.slice(split + 1));
  }
  for (const { key, valueBase64 } of config.envs) {
    if (key === '' || key.includes('='))
      throw new HerkosError('InvalidArgument', `'${key}' cannot be the name of an environment variable`);
    values.set(key, decodeValue(key, valueBase64));
  }
  return [...values].map(([key, value]) => {
    refuseNul(key + value, `the environment variable ${key}`);
    return `${key}=${value}`;
  });
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function decodeValue(key: string, valueBase64: string): string {
  try {
    return utf8.decode(Buffer.from(valueBase64, 'base64'));
  } catch {
    throw new HerkosError(
      'InvalidArgument',
      `the value of the environment variable ${key} is not UTF-8; an OCI config.json cannot carry it`,
    );
  }
}

import { HerkosError } from '../../base/errors.js';
import { isDigest } from './digest.js';
import { JsonValue } from './json-value.js';
import { configBytesMax, layersMax, readPlatform } from './manifest.js';
import type { ImageConfig } from './types.js';

/** Entries of one list in a config; the whole document is bounded too. */
const entriesMax = 65536;

/**
 * Reads an image config (OCI image-spec, config.md; Docker's container image v1 is the same document).
 * @throws HerkosError `FailedPrecondition` that says which member is wrong.
 */
export function parseConfig(bytes: Uint8Array, what: string): ImageConfig {
  if (bytes.length > configBytesMax)
    throw new HerkosError(
      'FailedPrecondition',
      `${what} is ${String(bytes.length)} bytes long; at most 8 MiB are read`,
    );
  const document = JsonValue.parse(bytes, what);
  const rootfs = document.get('rootfs');
  if (rootfs.get('type').string('layers') !== 'layers') rootfs.get('type').fail('is not "layers"');
  const diffIds = rootfs.get('diff_ids').strings(layersMax);
  for (const diffId of diffIds)
    if (!isDigest(diffId)) rootfs.get('diff_ids').fail('has an entry that is no sha256 digest');
  const run = document.get('config');
  return {
    platform: readPlatform(document),
    diffIds,
    user: run.get('User').string(''),
    env: run.get('Env').strings(entriesMax),
    entrypoint: run.get('Entrypoint').strings(entriesMax),
    cmd: run.get('Cmd').strings(entriesMax),
    workingDir: run.get('WorkingDir').string(''),
    stopSignal: run.get('StopSignal').string(''),
    labels: run.get('Labels').stringMap(entriesMax),
    volumes: run.get('Volumes').keys(entriesMax),
  };
}

import { HerkosError } from '../../base/errors.js';
import { MIB } from '../../base/units.js';
import type { OciProcess, OciSpec } from './types.js';

export const ociVersion = '1.0.2';

/** One message of the agent holds a config; it may not grow beyond this. */
export const specBytesMax = 2 * MIB;

/** config.json as bytes. @throws ResourceExhausted when it is longer than `specBytesMax` */
export function encodeSpec(spec: OciSpec): Buffer {
  return encode(spec, "the container's configuration");
}

export function encodeProcess(process: OciProcess): Buffer {
  return encode(process, 'the command');
}

function encode(value: unknown, what: string): Buffer {
  const bytes = Buffer.from(JSON.stringify(value));
  if (bytes.length > specBytesMax)
    throw new HerkosError(
      'ResourceExhausted',
      `${what} is ${String(bytes.length)} bytes long; the limit is ${String(specBytesMax)}: shorten its environment or arguments`,
    );
  return bytes;
}

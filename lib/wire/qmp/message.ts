/**
 * The QEMU Machine Protocol, one JSON object a line (QEMU docs/interop/qmp-spec). What comes from
 * QEMU is checked before use: a guest that took QEMU over would speak here.
 */
import { HerkosError } from '../../base/errors.js';

export type QmpObject = Readonly<Record<string, unknown>>;

export interface QmpError {
  readonly errorClass: string;
  readonly description: string;
}

export type QmpMessage =
  | { readonly kind: 'greeting'; readonly version: string }
  | { readonly kind: 'result'; readonly id: string; readonly value: unknown }
  | { readonly kind: 'error'; readonly id: string | undefined; readonly error: QmpError }
  | { readonly kind: 'event'; readonly name: string; readonly data: QmpObject };

/** Longest text of QEMU's that is kept in an error or an event's name. */
const textLengthMax = 1024;

/** One command as a line. */
export function encodeCommand(id: string, name: string, args: QmpObject): string {
  return `${JSON.stringify({ execute: name, arguments: args, id })}\r\n`;
}

/** @throws HerkosError `DataLoss` for a line that is not a QMP message. */
export function decodeMessage(line: string): QmpMessage {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line);
  } catch (error) {
    throw new HerkosError('DataLoss', 'QMP: a line is not JSON', { cause: error });
  }
  if (!isObject(parsed)) throw new HerkosError('DataLoss', 'QMP: a line is not a JSON object');
  if (isObject(parsed['QMP'])) return { kind: 'greeting', version: versionOf(parsed['QMP']) };
  if (typeof parsed['event'] === 'string')
    return {
      kind: 'event',
      name: parsed['event'].slice(0, textLengthMax),
      data: isObject(parsed['data']) ? parsed['data'] : {},
    };
  const id = typeof parsed['id'] === 'string' ? parsed['id'] : undefined;
  if (isObject(parsed['error'])) return { kind: 'error', id, error: errorOf(parsed['error']) };
  if ('return' in parsed && id !== undefined) return { kind: 'result', id, value: parsed['return'] };
  throw new HerkosError('DataLoss', 'QMP: a message is neither greeting, result, error nor event');
}

/** True for a JSON object, not for an array or null. */
export function isObject(value: unknown): value is QmpObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function errorOf(raw: QmpObject): QmpError {
  return { errorClass: textOf(raw['class']), description: textOf(raw['desc']) };
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value.slice(0, textLengthMax) : 'unknown';
}

function versionOf(greeting: QmpObject): string {
  const version = greeting['version'];
  const qemu = isObject(version) ? version['qemu'] : undefined;
  if (!isObject(qemu)) return 'unknown';
  return ['major', 'minor', 'micro'].map((part) => String(Number(qemu[part]))).join('.');
}

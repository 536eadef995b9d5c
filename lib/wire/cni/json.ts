/** Reading JSON that others wrote: bounded, and every complaint names the place. */
import { HerkosError } from '../../base/errors.js';
import { findJsonMistake } from './json-place.js';

export type JsonObject = Readonly<Record<string, unknown>>;

/** CNI configurations and results are a few KiB; a file beyond this is not one. */
export const cniJsonBytesMax = 1024 * 1024;

/**
 * Parses a JSON object. `what` names it in errors: a file name, or `the result of plugin bridge`.
 * @throws HerkosError `InvalidArgument` with line and column when the text is not a JSON object.
 */
export function parseJsonObject(text: string, what: string): JsonObject {
  if (Buffer.byteLength(text) > cniJsonBytesMax)
    throw bad(`${what} is larger than ${String(cniJsonBytesMax)} bytes`);
  if (text.trim() === '') throw bad(`${what} is empty`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw bad(`${what}${placeOf(text)} is not JSON`, error);
  }
  return asObject(value, what);
}

export function asObject(value: unknown, what: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw bad(`${what} must be a JSON object`);
  return value as JsonObject;
}

/** An array of objects of at most `lengthMax` members; a missing one is empty. */
export function objectsAt(parent: JsonObject, key: string, what: string, lengthMax: number): JsonObject[] {
  const value = parent[key];
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw bad(`${what}: ${key} must be an array`);
  if (value.length > lengthMax)
    throw bad(`${what}: ${key} has ${String(value.length)} members, more than ${String(lengthMax)}`);
  return value.map((item: unknown, index) => asObject(item, `${what}: ${key}[${String(index)}]`));
}

/** A string, or undefined when it is missing or null. */
export function stringAt(parent: JsonObject, key: string, what: string): string | undefined {
  const value = parent[key];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'string') throw bad(`${what}: ${key} must be a string`);
  return value;
}

/** An integer between 0 and 2^32-1, or undefined when it is missing or null. */
export function uint32At(parent: JsonObject, key: string, what: string): number | undefined {
  const value = parent[key];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > 0xffff_ffff)
    throw bad(`${what}: ${key} must be an integer between 0 and 4294967295`);
  return value;
}

/** A boolean; missing means false. libcni takes the strings "true" and "false" too. */
export function booleanAt(parent: JsonObject, key: string, what: string): boolean {
  const value = parent[key];
  if (value === undefined || value === null || value === false || value === 'false') return false;
  if (value === true || value === 'true') return true;
  throw bad(`${what}: ${key} must be true or false`);
}

export function bad(message: string, cause?: unknown): HerkosError {
  return new HerkosError('InvalidArgument', message, cause === undefined ? {} : { cause });
}

/** ` (line 3, column 7)`, or nothing when the place cannot be told. */
function placeOf(text: string): string {
  const offset = findJsonMistake(text);
  if (offset === undefined) return '';
  const lines = text.slice(0, offset).split('\n');
  return ` (line ${String(lines.length)}, column ${String((lines.at(-1) ?? '').length + 1)})`;
}

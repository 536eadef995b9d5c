/** Checks that every request goes through before a room sees it; each says which field is wrong. */
import type Long from 'long';

import { HerkosError } from '../base/errors.js';

/** Long enough for every name that Kubernetes allows (253), and short enough for a file name (255). */
const nameLengthMax = 253;
// Names end up in CNI arguments and in log fields, where `;`, `=` and control characters mean something else.
const namePattern = /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/;

/** A request that names what this runtime does not have; nothing of it is silently left out. */
export function unsupported(message: string): HerkosError {
  return new HerkosError('InvalidArgument', message, { reason: 'UNSUPPORTED_REQUEST' });
}

export function invalid(message: string): HerkosError {
  return new HerkosError('InvalidArgument', message);
}

/** The value of a message field that must be there. */
export function required<T>(value: T | null | undefined, field: string): T {
  if (value === null || value === undefined) throw invalid(`${field} is missing`);
  return value;
}

/** The value of a string field that must not be empty. */
export function requiredText(value: string | null | undefined, field: string): string {
  if (value === null || value === undefined || value === '') throw invalid(`${field} is missing`);
  return value;
}

/** A name that may stand in log fields, arguments of plugins and host names. */
export function requiredName(value: string | null | undefined, field: string): string {
  const name = requiredText(value, field);
  if (name.length > nameLengthMax || !namePattern.test(name))
    throw invalid(
      `${field} '${shown(name)}' is not valid: letters, digits, '.', '_' and '-', at most ${String(nameLengthMax)}`,
    );
  return name;
}

/** Empty, or an absolute path without `..`. */
export function optionalAbsolutePath(value: string | null | undefined, field: string): string {
  const path = value ?? '';
  if (path === '') return '';
  return requiredAbsolutePath(path, field);
}

export function requiredAbsolutePath(value: string | null | undefined, field: string): string {
  const path = requiredText(value, field);
  if (!path.startsWith('/')) throw invalid(`${field} '${shown(path)}' is not an absolute path`);
  return cleanPath(path, field);
}

/** Empty, or a path that stays below the directory it is joined to. */
export function optionalRelativePath(value: string | null | undefined, field: string): string {
  const path = value ?? '';
  if (path.startsWith('/')) throw invalid(`${field} '${shown(path)}' must be relative`);
  return cleanPath(path, field);
}

function cleanPath(path: string, field: string): string {
  if (path.includes('\0')) throw invalid(`${field} contains a NUL byte`);
  if (path.split('/').includes('..')) throw invalid(`${field} '${shown(path)}' must not contain '..'`);
  return path;
}

/** A whole number of the range, from a 32 or 64 bit field. Absent is 0. */
export function integer(
  value: Long | number | null | undefined,
  field: string,
  min = Number.MIN_SAFE_INTEGER,
  max = Number.MAX_SAFE_INTEGER,
): number {
  const number = value === null || value === undefined ? 0 : Number(value.toString());
  if (!Number.isSafeInteger(number) || number < min || number > max)
    throw invalid(`${field} ${String(number)} is out of range (${String(min)} to ${String(max)})`);
  return number;
}

/** The name of an enum's value. @throws for numbers that the enum does not have */
export function enumName<T extends string>(
  names: Readonly<Record<number, T>>,
  value: number | null | undefined,
  field: string,
): T {
  const name = names[value ?? 0];
  if (name === undefined) throw invalid(`${field} has the unknown value ${String(value)}`);
  return name;
}

/** A copy that shares nothing with the decoded message. */
export function stringMap(map: Readonly<Record<string, string>> | null | undefined): Record<string, string> {
  return Object.fromEntries(Object.entries(map ?? {}));
}

const shownLengthMax = 128;

/** Part of a request, short enough for an error message. */
export function shown(text: string): string {
  return text.length <= shownLengthMax ? text : `${text.slice(0, shownLengthMax)}…`;
}

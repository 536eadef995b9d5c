/** Checks of what a guest says: every number in its range, every id an id, every text fit to be shown. */
import type Long from 'long';

import { HerkosError } from '../../base/errors.js';
import { isId } from '../../base/ids.js';
import { textLengthMax } from './limits.js';

/** What stands for a character that has no business in a log. */
const replacement = '\uFFFD';

/**
 * Text of a guest, fit for logs and errors: without control characters, without the characters that
 * reorder what is shown, and not longer than `lengthMax`.
 */
export function cleanText(text: string, lengthMax = textLengthMax): string {
  const clean = text.slice(0, lengthMax).replaceAll(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, replacement);
  return text.length > lengthMax ? `${clean}…` : clean;
}

/** An answer that an agent of ours would never give. */
export function misbehaved(what: string): HerkosError {
  return new HerkosError('Internal', `the guest ${what}; its agent is broken or not ours`, {
    reason: 'GUEST_MISBEHAVED',
  });
}

/** @throws GUEST_MISBEHAVED unless `text` is a full id */
export function checkedId(text: string, what: string): string {
  if (!isId(text)) throw misbehaved(`named ${what} '${cleanText(text, 80)}', which is no id`);
  return text;
}

/** A 64-bit count as a number. @throws GUEST_MISBEHAVED when it is below 0 or above `max` */
export function checkedCount(value: Long, what: string, max = Number.MAX_SAFE_INTEGER): number {
  if (value.isNegative() || value.greaterThan(max))
    throw misbehaved(`said that ${what} is ${value.toString()}`);
  return value.toNumber();
}

/** @throws GUEST_MISBEHAVED when `value` is above `max` */
export function checkedNumber(value: number, what: string, max: number): number {
  if (!Number.isInteger(value) || value < 0 || value > max)
    throw misbehaved(`said that ${what} is ${String(value)}`);
  return value;
}

/** Bytes as a Buffer that owns its memory, so that a small answer does not keep a large message. */
export function ownBytes(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes);
}

import { constants } from 'node:os';

import { HerkosError } from '../../base/errors.js';

const signalMax = 64;
const realTimeFirst = 34;
const byName = new Map<string, number>(Object.entries(constants.signals));

/**
 * `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` and `SIGRTMAX-1` as a number; empty is SIGTERM.
 * @throws InvalidArgument
 */
export function signalNumber(text: string): number {
  if (text === '') return constants.signals.SIGTERM;
  const name = text.toUpperCase();
  const full = name.startsWith('SIG') ? name : `SIG${name}`;
  const value = /^\d{1,2}$/.test(text) ? Number(text) : (byName.get(full) ?? realTime(full));
  if (value === undefined || value < 1 || value > signalMax)
    throw new HerkosError('InvalidArgument', `'${text}' is not a signal; write for example SIGTERM or 15`);
  return value;
}

/** Numbers as C libraries show them to programs: SIGRTMIN is 34, SIGRTMAX 64. */
function realTime(name: string): number | undefined {
  const match = /^SIGRT(MIN|MAX)(?:([+-])(\d{1,2}))?$/.exec(name);
  if (match === null) return undefined;
  const base = match[1] === 'MIN' ? realTimeFirst : signalMax;
  const offset = Number(match[3] ?? 0) * (match[2] === '-' ? -1 : 1);
  const value = base + offset;
  return value >= realTimeFirst && value <= signalMax ? value : undefined;
}

import { HerkosError } from './errors.js';

export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;
export const TIB = 1024 * GIB;

const factors: Readonly<Record<string, number>> = {
  '': 1,
  KIB,
  MIB,
  GIB,
  TIB,
  K: KIB,
  M: MIB,
  G: GIB,
  KI: KIB,
  MI: MIB,
  GI: GIB,
};

/** Reads `512MiB`, `10Gi`, `4096` as bytes; the units are powers of 1024. */
export function parseBytes(text: string): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$/.exec(text);
  const factor = match === null ? undefined : factors[(match[2] ?? '').toUpperCase()];
  if (match === null || factor === undefined)
    throw new HerkosError('InvalidArgument', `'${text}' is not a size; write for example 512MiB or 10GiB`);
  const bytes = Math.round(Number(match[1]) * factor);
  if (!Number.isSafeInteger(bytes))
    throw new HerkosError('InvalidArgument', `'${text}' is too large; write less than 8192TiB`);
  return bytes;
}

/** `1.5 GiB`, for people. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? String(value) : value.toFixed(1)} ${units[unit] ?? ''}`;
}

/** Rounds up to a multiple of `step`. */
export function roundUp(value: number, step: number): number {
  return Math.ceil(value / step) * step;
}

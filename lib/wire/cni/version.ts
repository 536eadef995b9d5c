/** CNI specification versions that are understood, oldest first. */
import { bad } from './json.js';

/** Before 0.3.0 there was no chaining and no interface list; no plugin of this decade needs them. */
export const supportedVersions = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;

const pattern = /^(\d{1,4})\.(\d{1,4})\.(\d{1,4})$/;

/** Negative, zero or positive, as `a` is older than, equal to or newer than `b`. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [numbersOf(a), numbersOf(b)];
  return left.map((value, index) => value - (right[index] ?? 0)).find((difference) => difference !== 0) ?? 0;
}

export function isAtLeast(version: string, minimum: string): boolean {
  return compareVersions(version, minimum) >= 0;
}

export function isSupported(version: string): boolean {
  return supportedVersions.some((known) => known === version);
}

/** The newest of `offered` that is understood, or undefined. */
export function newestSupported(offered: readonly string[]): string | undefined {
  return supportedVersions.filter((known) => offered.includes(known)).at(-1);
}

function numbersOf(version: string): number[] {
  const match = pattern.exec(version);
  if (match === null) throw bad(`'${version}' is not a CNI version; write for example 1.0.0`);
  return match.slice(1).map(Number);
}

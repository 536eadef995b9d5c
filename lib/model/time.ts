/** Unix time in nanoseconds as a decimal string: exact in JSON, and what Long.fromString takes. */
export type UnixNano = string;

/** "Not yet": what CRI reports for a time that has not come. */
export const noTime: UnixNano = '0';

/** Now, in nanoseconds; the clock's own resolution is finer than a millisecond, so keep what it gives. */
export function nowUnixNano(): UnixNano {
  const ms = performance.timeOrigin + performance.now();
  const whole = Math.floor(ms);
  return String(BigInt(whole) * 1_000_000n + BigInt(Math.floor((ms - whole) * 1_000_000)));
}

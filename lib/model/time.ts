/** Unix time in nanoseconds as a decimal string: exact in JSON, and what Long.fromString takes. */
export type UnixNano = string;

/** "Not yet": what CRI reports for a time that has not come. */
export const noTime: UnixNano = '0';

/** What `performance.now()` counts from, as Unix time in milliseconds. */
let originMs = performance.timeOrigin;
/** `Date.now()` has whole milliseconds; one may pass between the two readings. */
const apartMsMax = 5;

/** Now, in nanoseconds; the clock's own resolution is finer than a millisecond, so keep what it gives. */
export function nowUnixNano(): UnixNano {
  const sinceMs = performance.now();
  const wallMs = Date.now();
  // The host's clock may be set at any time, and often is soon after the host has booted.
  if (Math.abs(originMs + sinceMs - wallMs) > apartMsMax) originMs = wallMs - sinceMs;
  const ms = originMs + sinceMs;
  const whole = Math.floor(ms);
  return String(BigInt(whole) * 1_000_000n + BigInt(Math.floor((ms - whole) * 1_000_000)));
}

export type Level = 'OK' | 'WARN' | 'FAIL';

/** One thing that was looked at. `hint` says what to do; it is empty when all is well. */
export interface Finding {
  readonly level: Level;
  readonly check: string;
  readonly found: string;
  readonly hint: string;
}

export function ok(check: string, found: string): Finding {
  return { level: 'OK', check, found, hint: '' };
}

/** Pods run, but not as well as they could, or not all of them. */
export function warn(check: string, found: string, hint: string): Finding {
  return { level: 'WARN', check, found, hint };
}

/** No pod can run. */
export function fail(check: string, found: string, hint: string): Finding {
  return { level: 'FAIL', check, found, hint };
}

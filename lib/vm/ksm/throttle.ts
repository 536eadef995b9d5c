/**
 * How fast the kernel's scanner may go. It is one thread (ksmd) that sleeps, looks at some pages, and
 * sleeps again; its cost is what a page costs times how many it looks at.
 */

/** Most of one processor core that the scanner may use, while there is something new to find and after. */
const fastShare = 0.1;
const slowShare = 0.01;
/** How long it sleeps between two steps: short steps spread a fast scan, long ones let an idle core sleep. */
const fastSleepMs = 20;
const slowSleepMs = 200;
/** Up to here processes wait for processors no more than they always do; from there on the scanner rests. */
const pressureFreePercent = 10;
const pressureRestPercent = 50;
/** Before it has been measured: checksum and tree look-up of one page. */
export const pageCostUsDefault = 5;
/** A measurement outside is an artefact: of coarse clock ticks, or of pages that are skipped unread. */
const pageCostUsMin = 1;
const pageCostUsMax = 100;
/** Clock ticks are 10 ms: fewer say nothing. */
const measuredMsMin = 50;
const measuredPagesMin = 1_000;
/** A file of the kernel is not written for less. */
const changeMin = 0.2;

export interface ThrottleInput {
  /** Whether there are pages that the scanner cannot have seen often enough yet. */
  readonly isFresh: boolean;
  /** Share of the time in which some process waited for a processor, 0 to 100. */
  readonly pressurePercent: number;
  /** Of ksmd, measured. */
  readonly pageCostUs: number;
}

/** What is written to the kernel; `pagesToScan` 0 means: rest. */
export interface ScanRate {
  readonly pagesToScan: number;
  readonly sleepMs: number;
}

export function scanRate({ isFresh, pressurePercent, pageCostUs }: ThrottleInput): ScanRate {
  const [share, sleepMs] = isFresh ? [fastShare, fastSleepMs] : [slowShare, slowSleepMs];
  const left = (pressureRestPercent - pressurePercent) / (pressureRestPercent - pressureFreePercent);
  const allowedUs = share * Math.min(1, Math.max(0, left)) * sleepMs * 1_000;
  return { pagesToScan: Math.floor(allowedUs / clamp(pageCostUs, pageCostUsMin, pageCostUsMax)), sleepMs };
}

/** Whether the kernel should be told: resting and the step always, the speed when it differs enough. */
export function isWorthChanging(from: ScanRate, to: ScanRate): boolean {
  if (from.sleepMs !== to.sleepMs) return true;
  const difference = Math.abs(to.pagesToScan - from.pagesToScan);
  return difference > 0 && (to.pagesToScan === 0 || difference >= changeMin * from.pagesToScan);
}

/** @returns microseconds a page; undefined when too little was scanned to tell */
export function measuredPageCostUs(cpuMs: number, pages: number): number | undefined {
  if (cpuMs < measuredMsMin || pages < measuredPagesMin) return undefined;
  return clamp((cpuMs * 1_000) / pages, pageCostUsMin, pageCostUsMax);
}

/** `some avg10` of /proc/pressure/cpu (kernel documentation, accounting/psi). */
export function parsePressure(text: string): number | undefined {
  const value = /^some avg10=(\d+(?:\.\d+)?)/m.exec(text)?.[1];
  return value === undefined ? undefined : Number(value);
}

/**
 * In place of pressure, from the load of the last minute (proc(5), loadavg): none while half of the
 * processors are busy, the scanner rests when all are.
 */
export function pressureOfLoad(text: string, cpuCount: number): number {
  const load = Number.parseFloat(text);
  // What cannot be read must not make the scanner faster.
  if (!Number.isFinite(load)) return 100;
  return clamp((load / cpuCount - 0.5) * 100, 0, 100);
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, value));
}

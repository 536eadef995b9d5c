/** What a benchmark is: a name others rely on, and rows measured in one run on one machine. */

export interface Row {
  readonly name: string;
  readonly unit: string;
  /** The median of `n` samples, with the lowest and the highest. */
  readonly value: number;
  readonly low: number;
  readonly high: number;
  readonly n: number;
  /** The floor or peer that `ratio` divides by; empty when there is none. */
  readonly against: string;
  /** value / the peer's median. */
  readonly ratio: number | null;
  /** What we aim at, in words such as `<= 1.15 x`. */
  readonly goal: string;
}

export interface Bench {
  /** The rows it makes, first its own. */
  readonly names: readonly string[];
  readonly about: string;
  /** How long it takes on the small machine of docs/benchmarks.md, not quick. */
  readonly minutes: number;
  run(tools: BenchTools): Promise<Row[]>;
}

/** What a benchmark is given. */
export interface BenchTools {
  /** One line for the person who waits. */
  say(line: string): void;
  /** Fewer pods and rounds: a try whether it works, not a measurement. */
  readonly quick: boolean;
  /** Keeps where the time of one RunPodSandbox went, for the chart of phases. */
  chart(bar: PhaseBar): void;
}

export interface Phase {
  readonly phase: string;
  readonly ms: number;
}

/** One bar of the chart: the phases of a pod's start, of the sample that is the median. */
export interface PhaseBar {
  readonly label: string;
  readonly phases: readonly Phase[];
}

export interface Spread {
  readonly median: number;
  readonly low: number;
  readonly high: number;
  readonly n: number;
}

export function spread(samples: readonly number[]): Spread {
  const sorted = [...samples].sort((a, b) => a - b);
  return {
    median: quantile(sorted, 0.5),
    low: sorted[0] ?? Number.NaN,
    high: sorted.at(-1) ?? Number.NaN,
    n: sorted.length,
  };
}

/** The value below which the given part of the sorted samples lies (nearest rank, mean of two for the middle). */
export function quantile(sorted: readonly number[], part: number): number {
  if (sorted.length === 0) return Number.NaN;
  if (part === 0.5 && sorted.length % 2 === 0) {
    const half = sorted.length / 2;
    return ((sorted[half - 1] ?? 0) + (sorted[half] ?? 0)) / 2;
  }
  return sorted[Math.min(sorted.length - 1, Math.ceil(part * sorted.length) - 1)] ?? Number.NaN;
}

/** Milliseconds, told as a list on one line. */
export function shownMs(samples: readonly number[]): string {
  return `${samples.map((value) => value.toFixed(0)).join(' ')} ms`;
}

/** Milliseconds that `body` takes. */
export async function timed(body: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await body();
  return performance.now() - began;
}

export interface Measured {
  readonly name: string;
  readonly unit: string;
  readonly samples: readonly number[];
  readonly goal: string;
  readonly peer?: { readonly name: string; readonly samples: readonly number[] };
}

export function row(measured: Measured): Row {
  const own = spread(measured.samples);
  const peer = measured.peer === undefined ? undefined : spread(measured.peer.samples);
  return {
    name: measured.name,
    unit: measured.unit,
    value: rounded(own.median),
    low: rounded(own.low),
    high: rounded(own.high),
    n: own.n,
    against:
      peer === undefined
        ? ''
        : `${measured.peer?.name ?? ''}: ${String(rounded(peer.median))} ${measured.unit} (${String(rounded(peer.low))}-${String(rounded(peer.high))})`,
    ratio: peer === undefined ? null : rounded(own.median / peer.median),
    goal: measured.goal,
  };
}

function rounded(value: number): number {
  return Number(value.toPrecision(3));
}

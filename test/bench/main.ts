/** `hack/bench [NAME ...] [--json FILE] [--quick] [--list]`: medians of real runs, as a Markdown table. */
import { parseArgs } from 'node:util';

import { finishedLogs, runningDaemons } from '../tools/herkosd-process.js';
import type { Bench, PhaseBar, Row } from './bench.js';
import { daemonMemory } from './daemon-memory.js';
import { density } from './density.js';
import { tellFailure } from './failure.js';
import { imagePull } from './image-pull.js';
import { isInterrupted, watchSignals } from './interrupt.js';
import { listLatency } from './list-latency.js';
import { rawFloors } from './raw-floors.js';
import { report, writeReport } from './report.js';
import { coldBurst, poolBurst, sandboxBurst } from './sandbox-burst.js';
import { sandboxClone, sandboxCold, sandboxPool } from './sandbox-start.js';
import { soak } from './soak.js';
import { warmPod } from './warm-pod.js';

const benches: readonly Bench[] = [
  rawFloors,
  sandboxCold,
  sandboxClone,
  sandboxPool,
  sandboxBurst,
  coldBurst,
  poolBurst,
  warmPod,
  density,
  soak,
  daemonMemory,
  listLatency,
  imagePull,
];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'string' },
    list: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
  },
});

if (values.list) {
  for (const { names, about, minutes } of benches)
    console.log(`${names.join(', ')}: ${about}; about ${String(minutes)} min`);
  console.log(`all of them: about ${String(minutesOf(benches))} min`);
} else {
  watchSignals();
  await main();
}

async function main(): Promise<void> {
  const unknown = positionals.filter((name) => named(name).length === 0);
  if (unknown.length > 0) {
    console.error(`error: there is no benchmark ${unknown.join(', ')}; --list names them`);
    process.exit(2);
  }
  const wanted = positionals.flatMap(named);
  const chosen = positionals.length === 0 ? benches : benches.filter((bench) => wanted.includes(bench));
  if (!values.quick) console.log(`this takes about ${String(minutesOf(chosen))} minutes`);
  const rows: Row[] = [];
  const bars: PhaseBar[] = [];
  const failed: string[] = [];
  for (const bench of chosen) {
    if (isInterrupted()) break;
    if (!(await runOne(bench, rows, bars))) failed.push(bench.names[0] ?? '');
    // After each, so that a long run that is cut off has given something.
    if (values.json !== undefined) writeReport(values.json, rows, bars);
  }
  console.log(`\n${report(rows)}`);
  if (values.quick) console.log('--quick: few samples of few pods; this shows that it works, and no more');
  if (failed.length === 0 || isInterrupted()) return;
  process.exitCode = 1;
  console.error(`error: rows are missing, for ${failed.join(', ')} failed: what failed is told above`);
  console.error(`next: hack/bench ${failed.join(' ')} --quick`);
}

/** Those that make the row, or, where no row has that name, rows that begin with it: `soak`, `pss`. */
function named(name: string): readonly Bench[] {
  const exactly = benches.filter(({ names }) => names.includes(name));
  if (exactly.length > 0) return exactly;
  return benches.filter(({ names }) => names.some((row) => row.startsWith(`${name}-`)));
}

/** One that fails must not cost the results of the others. */
async function runOne(bench: Bench, rows: Row[], bars: PhaseBar[]): Promise<boolean> {
  const began = performance.now();
  console.log(`==> ${bench.names.join(', ')}: ${bench.about}`);
  try {
    const made = await bench.run({
      say: (line) => {
        console.log(`    ${line}`);
      },
      quick: values.quick,
      chart: (bar) => {
        bars.push(bar);
      },
    });
    rows.push(...made);
    finishedLogs.clear();
    console.log(`    took ${((performance.now() - began) / 1000).toFixed(0)} s`);
    return true;
  } catch (error) {
    if (!isInterrupted()) await tellFailure(bench, error);
    return false;
  } finally {
    // A benchmark cleans up after itself, and when it could not: this is the last who can.
    for (const daemon of runningDaemons) await daemon.cleanUp();
  }
}

function minutesOf(some: readonly Bench[]): number {
  return some.reduce((sum, { minutes }) => sum + minutes, 0);
}

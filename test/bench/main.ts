/** `hack/bench [NAME ...] [--json FILE] [--list]`: medians of real runs, as a Markdown table. */
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { parseArgs } from 'node:util';

import type { Bench, PhaseBar, Row } from './bench.js';
import { daemonMemory } from './daemon-memory.js';
import { imagePull } from './image-pull.js';
import { listLatency } from './list-latency.js';
import { rawFloors } from './raw-clone.js';
import { warmPod } from './warm-pod.js';
import { sandboxClone, sandboxCold, sandboxPool } from './sandbox-start.js';

const benches: readonly Bench[] = [rawFloors, sandboxCold, sandboxClone, sandboxPool, warmPod, imagePull, daemonMemory, listLatency];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: 'string' }, quick: { type: 'boolean', default: false }, list: { type: 'boolean', default: false } },
});

if (values.list) {
  for (const { names, about } of benches) console.log(`${names.join(', ')}: ${about}`);
} else {
  const unknown = positionals.filter((name) => !benches.some(({ names }) => names.includes(name)));
  if (unknown.length > 0) {
    console.error(`error: there is no benchmark ${unknown.join(', ')}; --list names them`);
    process.exit(2);
  }
  const chosen =
    positionals.length === 0
      ? benches
      : benches.filter(({ names }) => names.some((name) => positionals.includes(name)));
  const rows: Row[] = []; const bars: PhaseBar[] = [];
  for (const bench of chosen) {
    console.log(`==> ${bench.names.join(', ')}: ${bench.about}`);
    rows.push(
      ...(await bench.run({
        say: (line) => {
          console.log(`    ${line}`);
        },
        quick: values.quick,
        chart: (bar) => bars.push(bar),
      })),
    );
  }
  console.log(`\n${machine()}\n\n${table(rows)}`);
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, null, 2)}\n`);
}

function table(rows: readonly Row[]): string {
  const lines = rows.map(({ name, unit, value, low, high, n, against, ratio, goal }) =>
    [
      '',
      name,
      `${String(value)} ${unit}`,
      `${String(low)}-${String(high)}`,
      String(n),
      against === '' ? '-' : against,
      ratio === null ? '-' : `${String(ratio)} x`,
      goal,
      '',
    ]
      .join(' | ')
      .trim(),
  );
  return [
    '| name | median | spread | n | against | ratio | goal |',
    '|---|---|---|---|---|---|---|',
    ...lines,
  ].join('\n');
}

function machine(): string {
  const model = cpus()[0]?.model.trim() ?? 'unknown processor';
  const os = /PRETTY_NAME="(.*)"/.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'unknown system';
  return [
    new Date().toISOString().slice(0, 10),
    `${String(cpus().length)} cores ${model}`,
    `${String(Math.round(totalmem() / 1024 ** 3))} GiB`,
    os,
    `Node ${process.versions.node}`,
  ].join(', ');
}

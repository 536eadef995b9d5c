/** Rows as people and programs read them: a Markdown table, JSON, and the chart of phases beside it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';

import type { PhaseBar, Row } from './bench.js';
import { phaseChart } from './phase-chart.js';

const gibibyte = 2 ** 30;

export function report(rows: readonly Row[]): string {
  return `${machine()}\n\n${table(rows)}\n`;
}

/** @param path `FILE.json`; the table goes to `FILE.md`, the chart to `FILE.svg` */
export function writeReport(path: string, rows: readonly Row[], bars: readonly PhaseBar[]): void {
  const base = path.replace(/\.json$/, '');
  writeFileSync(path, `${JSON.stringify(rows, null, 2)}\n`);
  writeFileSync(`${base}.md`, report(rows));
  if (bars.length > 0) writeFileSync(`${base}.svg`, phaseChart(bars));
}

function table(rows: readonly Row[]): string {
  const lines = rows.map(({ name, unit, value, low, high, n, against, ratio, goal }) => {
    const cells = [
      name,
      `${String(value)} ${unit}`,
      `${String(low)}-${String(high)}`,
      String(n),
      against === '' ? '-' : against,
      ratio === null ? '-' : `${String(ratio)} x`,
      goal,
    ];
    return `| ${cells.join(' | ')} |`;
  });
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
    `${String(Math.round(totalmem() / gibibyte))} GiB`,
    os,
    `Node ${process.versions.node}`,
  ].join(', ');
}

/** A benchmark that failed: why, what its daemons said last, where the rest is, and what to do next. */
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { lastLines, takeLogs } from '../tools/last-logs.js';
import type { Bench } from './bench.js';

const linesMax = 25;

export async function tellFailure({ names }: Bench, error: unknown): Promise<void> {
  const logs = await takeLogs();
  console.error(`    failed: ${stackOf(error)}`);
  process.stderr.write(lastLines(logs, linesMax));
  if (logs.size > 0) {
    const directory = await mkdtemp(join(tmpdir(), 'herkos-bench-logs-'));
    for (const [instance, log] of logs) await writeFile(join(directory, `${instance}.log`), log);
    console.error(`    the whole logs are in ${directory}`);
  }
  console.error(`    next: hack/bench ${names[0] ?? ''} --quick  (this one alone, in short)`);
  console.error('    what a node must have is checked by: herkosctl doctor; see docs/operating.md');
}

/** With the cause, which mostly is the part that says it. */
function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const own = error.stack ?? error.message;
  return error.cause === undefined ? own : `${own}\n    because of: ${stackOf(error.cause)}`;
}

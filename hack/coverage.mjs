// Sums up by room what a test run has executed, and fails below a floor: coverage.mjs DIRECTORY
// DIRECTORY is what $NODE_V8_COVERAGE named while the tests ran (node writes there when it ends, worker
// threads and child processes included).
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');
/** Lines of all rooms but those of `onRealVms`: 91.6 % when this was written. */
const floorPercent = 90;
/** No room falls below this unseen behind the others; the lowest, lib/vm, had 79 %. */
const roomFloorPercent = 70;
/** What these do, they do to a real QEMU, network or process: the integration tests run them. */
const onRealVms = new Set(['cmd/herkosd', 'lib/drivers/memfd', 'lib/drivers/qemu', 'lib/drivers/starter']);

const [measured] = process.argv.slice(2);
if (measured === undefined) throw new Error('usage: coverage.mjs DIRECTORY');

/** Line counts of every source file, run or not, as istanbul's json-summary has them. */
function summarize(directory) {
  const reports = mkdtempSync(join(tmpdir(), 'herkos-coverage-'));
  try {
    // The patterns name compiled files: they are looked at before source maps lead back to the sources.
    const include = ['--include', 'dist/lib/**', '--include', 'dist/cmd/**'];
    const places = ['--temp-directory', directory, '--reports-dir', reports];
    const options = ['report', '--all', '--src', '.', ...include, ...places, '--reporter', 'json-summary'];
    execFileSync(process.execPath, [join(root, 'node_modules/c8/bin/c8.js'), ...options], {
      cwd: root,
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    return JSON.parse(readFileSync(join(reports, 'coverage-summary.json'), 'utf8'));
  } finally {
    rmSync(reports, { recursive: true, force: true });
  }
}

/** `lib/pod`, `lib/drivers/qemu`, `cmd/herkosd`. */
function roomOf(path) {
  const parts = relative(root, path).split('/');
  return parts.slice(0, parts[1] === 'drivers' ? 3 : 2).join('/');
}

function percentOf({ covered, total }) {
  return (100 * covered) / Math.max(total, 1);
}

const rooms = new Map();
const counted = { covered: 0, total: 0 };
for (const [path, { lines }] of Object.entries(summarize(measured))) {
  // What was measured may have been built before a source went.
  if (path === 'total' || !existsSync(path)) continue;
  const room = roomOf(path);
  const sums = rooms.get(room) ?? { covered: 0, total: 0 };
  rooms.set(room, sums);
  for (const sum of onRealVms.has(room) ? [sums] : [sums, counted]) {
    sum.covered += lines.covered;
    sum.total += lines.total;
  }
}

const complaints = [];
for (const [room, sums] of [...rooms].sort()) {
  const percent = percentOf(sums);
  const isExempt = onRealVms.has(room);
  const remark = isExempt ? '  (integration tests run it)' : '';
  console.log(`    ${room.padEnd(20)} ${percent.toFixed(1).padStart(5)} % of ${sums.total} lines${remark}`);
  if (!isExempt && percent < roomFloorPercent)
    complaints.push(`${room}: ${percent.toFixed(1)} % is below ${roomFloorPercent} %`);
}
const percent = percentOf(counted);
console.log(`    ${'together'.padEnd(20)} ${percent.toFixed(1).padStart(5)} % of ${counted.total} lines`);
// Also when nothing was measured at all: a table of zeros is no news about the tests.
if (percent < floorPercent) complaints.push(`together: ${percent.toFixed(1)} % is below ${floorPercent} %`);
for (const complaint of complaints)
  console.error(`error: the unit tests run too little of the code: ${complaint}`);
process.exit(complaints.length === 0 ? 0 : 1);

/** Where and how a command answers: tables for people on standard output, or JSON for programs. */
import type { Context } from '../../lib/base/context.js';
import { abortable } from '../../lib/base/context.js';

export interface OutputStream {
  /** False: the reader is slow; 'drain' tells when there is room for more. */
  write(text: string | Uint8Array): unknown;
  once?(event: 'drain', listener: () => void): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export type OutputFormat = 'table' | 'json';

export class Output {
  constructor(
    readonly format: OutputFormat,
    readonly stdout: OutputStream,
    readonly stderr: OutputStream,
  ) {}

  /** `value` as JSON, or what `human` prints. */
  result(value: unknown, human: () => void): void {
    if (this.format === 'json') this.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
    else human();
  }

  line(text: string): void {
    this.stdout.write(`${printable(text)}\n`);
  }

  /** For people only: progress, times and hints never mix with results. */
  note(text: string): void {
    this.stderr.write(`${printable(text)}\n`);
  }

  /** Columns as wide as their longest cell, two spaces apart. */
  table(head: readonly string[], rows: readonly (readonly string[])[]): void {
    const cells = [head, ...rows].map((row) => row.map(printable));
    const widths = head.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
    for (const row of cells)
      this.stdout.write(
        `${row
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
      );
  }
}

/** Writes, and waits for a reader that is slower than us: what he has not read would pile up in our memory. */
export async function written(ctx: Context, stream: OutputStream, text: string | Uint8Array): Promise<void> {
  if (stream.write(text) !== false) return;
  const drained = new Promise<void>((resolve) => {
    stream.once?.('drain', resolve);
  });
  await abortable(ctx, drained);
}

/** Names and messages come from others: control characters would reach into the reader's terminal. */
function printable(text: string): string {
  return text.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '\ufffd');
}

/** The first digits of an id, with the algorithm of a digest left out. */
export function shownId(id: string): string {
  return id.replace(/^sha256:/, '').slice(0, 13);
}

/** `3 minutes ago`, from Unix nanoseconds. */
export function shownAge(unixNano: { toString(): string } | null | undefined, nowMs = Date.now()): string {
  const ms = Number(BigInt(String(unixNano ?? '0')) / 1_000_000n);
  if (ms === 0) return '-';
  const seconds = Math.max(0, Math.round((nowMs - ms) / 1000));
  const units: readonly (readonly [string, number])[] = [
    ['day', 86_400],
    ['hour', 3_600],
    ['minute', 60],
  ];
  for (const [unit, length] of units) {
    const count = Math.floor(seconds / length);
    if (count > 0) return `${String(count)} ${unit}${count === 1 ? '' : 's'} ago`;
  }
  return `${String(seconds)} s ago`;
}

/** `812 ms`, `1.24 s`. */
export function shownMs(ms: number): string {
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

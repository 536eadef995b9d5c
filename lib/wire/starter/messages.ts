/**
 * What the daemon and its starter (`herkos-host starter`) say to each other: a line of JSON, and as many bytes behind it
 * as it says. Source: cmd/herkos-host/src/starter.rs.
 */
import { z } from 'zod';

import { HerkosError } from '../../base/errors.js';

export interface ProgramOrder {
  readonly id: number;
  readonly program: string;
  readonly args: readonly string[];
  /** The starter's own without it. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly cwd?: string | undefined;
  /** Bytes of each output that are kept. */
  readonly outputMax: number;
  readonly input: Uint8Array;
}

/** A program that outlives the daemon. */
export interface LaunchOrder {
  readonly id: number;
  readonly program: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** A file that is there. */
  readonly log: string;
}

/** Of a launched program `started` comes first; without it, it was not. */
export type ProgramReport =
  | { readonly kind: 'started'; readonly id: number; readonly pid: number; readonly startTicks: string }
  | {
      readonly kind: 'ended';
      readonly id: number;
      readonly exitCode: number | undefined;
      /** The signal's number. */
      readonly signal: number | undefined;
      readonly stdout: Buffer;
      readonly stderr: Buffer;
      readonly isOverflown: boolean;
    }
  | { readonly kind: 'not-started'; readonly id: number; readonly errno: number };

export function encodeOrder({ env, input, ...order }: ProgramOrder): Buffer {
  const pairs = env === undefined ? {} : { env: Object.entries(env) };
  const line = JSON.stringify({ ...order, ...pairs, input: input.length });
  return Buffer.concat([Buffer.from(`${line}\n`), input]);
}

export function encodeLaunch({ env, ...order }: LaunchOrder): string {
  return `${JSON.stringify({ ...order, env: Object.entries(env) })}\n`;
}

export function encodeKill(id: number): string {
  return `${JSON.stringify({ kill: id })}\n`;
}

const count = z.number().int().nonnegative();
const reportLine = z.union([
  z.strictObject({ id: count, errno: count }),
  z.strictObject({ id: count, pid: count, startTicks: z.string().regex(/^\d{1,20}$/) }),
  z.strictObject({
    id: count,
    code: z.number().int().nullable(),
    signal: count.nullable(),
    stdout: count,
    stderr: count,
    overflown: z.boolean(),
  }),
]);

const lineBytesMax = 4096;
const newline = 0x0a;

/** Puts reports together again from the pieces in which they arrive. */
export class ReportParser {
  readonly #bytesMax: number;
  #parts: Buffer[] = [];
  #bytes = 0;
  /** Until there are so many, there is nothing to look at. */
  #wanted = 1;

  /** @param bytesMax - of one report's outputs together */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** @throws HerkosError `DataLoss` for what no starter says; there is no going on then */
  push(chunk: Buffer): ProgramReport[] {
    this.#parts.push(chunk);
    this.#bytes += chunk.length;
    const reports: ProgramReport[] = [];
    while (this.#bytes >= this.#wanted) {
      const report = this.#take(Buffer.concat(this.#parts));
      if (report === undefined) break;
      reports.push(report);
    }
    return reports;
  }

  #take(bytes: Buffer): ProgramReport | undefined {
    const end = bytes.indexOf(newline);
    if (end > lineBytesMax || (end === -1 && bytes.length > lineBytesMax))
      throw broken('a report without an end');
    if (end === -1) {
      this.#keep(bytes, bytes.length + 1);
      return undefined;
    }
    const line = parseLine(bytes.toString('utf8', 0, end));
    if ('errno' in line) {
      this.#keep(bytes.subarray(end + 1), 1);
      return { kind: 'not-started', ...line };
    }
    if ('pid' in line) {
      this.#keep(bytes.subarray(end + 1), 1);
      return { kind: 'started', ...line };
    }
    if (line.stdout + line.stderr > this.#bytesMax) throw broken('outputs that are too large');
    const middle = end + 1 + line.stdout;
    const total = middle + line.stderr;
    if (bytes.length < total) {
      this.#keep(bytes, total);
      return undefined;
    }
    this.#keep(bytes.subarray(total), 1);
    return {
      kind: 'ended',
      id: line.id,
      exitCode: line.code ?? undefined,
      signal: line.signal ?? undefined,
      stdout: bytes.subarray(end + 1, middle),
      stderr: bytes.subarray(middle, total),
      isOverflown: line.overflown,
    };
  }

  #keep(bytes: Buffer, wanted: number): void {
    this.#parts = bytes.length === 0 ? [] : [bytes];
    this.#bytes = bytes.length;
    this.#wanted = wanted;
  }
}

function parseLine(text: string): z.infer<typeof reportLine> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw broken('a report that is no JSON');
  }
  const parsed = reportLine.safeParse(value);
  if (!parsed.success) throw broken('a report that is none');
  return parsed.data;
}

function broken(what: string): HerkosError {
  return new HerkosError('DataLoss', `the starter sent ${what}`);
}

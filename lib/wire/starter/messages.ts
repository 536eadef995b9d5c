/**
 * What the daemon and its starter (`herkos-host starter`) say to each other: a line of JSON, and as many bytes behind it
 * as it says. Source: cmd/herkos-host/src/starter.rs.
 */
import { z } from 'zod';

import { HerkosError } from '../../base/errors.js';
import { MIB } from '../../base/units.js';

/** As starter.rs has them; the kernel takes no such arguments either. */
const orderBytesMax = 4 * MIB;
const inputBytesMax = 64 * MIB;

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

/** Of the lock that the starter was told to hold; `taken` may come after `held`. */
export type LockReport =
  | { readonly kind: 'lock'; readonly lock: 'taken' }
  /** By another process; 0 is one that cannot be seen from here. */
  | { readonly kind: 'lock'; readonly lock: 'held'; readonly pid: number }
  | { readonly kind: 'lock'; readonly lock: 'failed'; readonly errno: number };

/** @throws HerkosError `ResourceExhausted` when it is more than a starter takes, which would end it and all it runs */
export function encodeOrder({ env, input, ...order }: ProgramOrder): Buffer {
  if (input.length > inputBytesMax) throw tooLarge(order.program, 'input');
  const pairs = env === undefined ? {} : { env: Object.entries(env) };
  return Buffer.concat([orderLine({ ...order, ...pairs, input: input.length }), input]);
}

/** @throws HerkosError as `encodeOrder` does */
export function encodeLaunch({ env, ...order }: LaunchOrder): Buffer {
  return orderLine({ ...order, env: Object.entries(env) });
}

function orderLine(order: { readonly program: string; readonly [field: string]: unknown }): Buffer {
  const line = Buffer.from(`${JSON.stringify(order, asUtf8)}\n`);
  if (line.length > orderBytesMax) throw tooLarge(order.program, 'arguments');
  return line;
}

/** Halves of surrogate pairs are no text elsewhere; programs see the same sign in their place as from Node. */
function asUtf8(_key: string, value: unknown): unknown {
  return typeof value === 'string' ? Buffer.from(value).toString() : value;
}

function tooLarge(program: string, what: string): HerkosError {
  return new HerkosError('ResourceExhausted', `cannot run ${program}: its ${what} are too large`);
}

export function encodeKill(id: number): string {
  return `${JSON.stringify({ kill: id })}\n`;
}

const count = z.number().int().nonnegative();
const reportLine = z.union([
  z.strictObject({ lock: z.literal('taken') }),
  z.strictObject({ lock: z.literal('held'), pid: count }),
  z.strictObject({ lock: z.literal('failed'), errno: count }),
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
  push(chunk: Buffer): (ProgramReport | LockReport)[] {
    this.#parts.push(chunk);
    this.#bytes += chunk.length;
    const reports: (ProgramReport | LockReport)[] = [];
    while (this.#bytes >= this.#wanted) {
      const report = this.#take(Buffer.concat(this.#parts));
      if (report === undefined) break;
      reports.push(report);
    }
    return reports;
  }

  #take(bytes: Buffer): ProgramReport | LockReport | undefined {
    const end = bytes.indexOf(newline);
    if (end > lineBytesMax || (end === -1 && bytes.length > lineBytesMax))
      throw broken('a report without an end');
    if (end === -1) {
      this.#keep(bytes, bytes.length + 1);
      return undefined;
    }
    const line = parseLine(bytes.toString('utf8', 0, end));
    if ('lock' in line) {
      this.#keep(bytes.subarray(end + 1), 1);
      return { kind: 'lock', ...line };
    }
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

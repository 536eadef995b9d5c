import { createConnection } from 'node:net';
import type { Socket } from 'node:net';

import type { Context } from '../../base/context.js';
import { abortable, underDeadline } from '../../base/context.js';
import { HerkosError, messageOf } from '../../base/errors.js';
import { encodeCommand } from '../../wire/qmp/message.js';
import type { QmpMessage, QmpObject } from '../../wire/qmp/message.js';
import { QmpLineParser } from '../../wire/qmp/line-parser.js';

export interface QmpEvent {
  readonly name: string;
  readonly data: QmpObject;
}

/** QEMU answers within milliseconds; one that takes longer is stuck. */
const commandTimeoutMs = 15_000;
const greetingTimeoutMs = 15_000;
/** Commands that wait for their answer at a time. */
const pendingCountMax = 256;
/**
 * A guest can have QEMU tell of something without end (ACPI_DEVICE_OST, by the registers for CPU hot-plug); an
 * honest one causes some tens at a time.
 */
const eventsPerSecondMax = 1_000;
/** QEMU 7.2 tells of every request that a full disk fails, and such a guest must live. */
const diskErrorsPerSecondMax = 20_000;

interface Pending {
  readonly command: string;
  resolve(value: unknown): void;
  reject(error: HerkosError): void;
}

/**
 * One QMP connection. Commands may overlap; events go to every listener. When the connection ends,
 * for whatever reason, `lost` settles and every waiting command fails with `Unavailable`.
 */
export class QmpSession {
  /** Never rejects; says why. */
  readonly lost: Promise<string>;
  readonly #socket: Socket;
  readonly #parser = new QmpLineParser();
  readonly #pending = new Map<string, Pending>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #greeting: Promise<string>;
  #greet: (version: string) => void = () => undefined;
  #lose: (why: string) => void = () => undefined;
  #lostWhy: string | undefined;
  #nextId = 1;
  readonly #eventCounts = { sinceMs: 0, diskErrors: 0, others: 0 };

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.lost = new Promise((resolve) => {
      this.#lose = resolve;
    });
    this.#greeting = new Promise((resolve) => {
      this.#greet = resolve;
    });
    socket.on('data', (chunk) => {
      this.#onData(chunk);
    });
    socket.on('error', (error) => {
      this.#end(messageOf(error));
    });
    socket.on('close', () => {
      this.#end('QEMU closed the connection');
    });
  }

  /**
   * Connects to QEMU's monitor socket and negotiates.
   * @throws HerkosError `Unavailable` when nobody listens there or the other side is not QEMU.
   */
  static async connect(ctx: Context, path: string): Promise<QmpSession> {
    const session = new QmpSession(await connectSocket(ctx, path));
    try {
      await underDeadline(ctx, greetingTimeoutMs, 'the greeting of QEMU', (step) =>
        session.#orLost(step, session.#greeting),
      );
      await session.execute(ctx, 'qmp_capabilities');
      return session;
    } catch (error) {
      session.destroy();
      throw error;
    }
  }

  /**
   * Runs a command and returns its result.
   * @throws HerkosError `Internal` with QEMU's own words, `Unavailable` when the connection is lost.
   */
  async execute(ctx: Context, command: string, args: QmpObject = {}): Promise<unknown> {
    if (this.#lostWhy !== undefined) throw lostError(command, this.#lostWhy);
    if (this.#pending.size >= pendingCountMax)
      throw new HerkosError(
        'ResourceExhausted',
        `QMP: more than ${String(pendingCountMax)} commands wait for QEMU`,
      );
    const id = String(this.#nextId++);
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#pending.set(id, { command, resolve, reject });
    });
    this.#socket.write(encodeCommand(id, command, args));
    // A late answer finds its entry and nobody listening, so the table shrinks by itself.
    return underDeadline(ctx, commandTimeoutMs, `QMP command ${command}`, () => answer);
  }

  /** Calls `listener` for every event until the returned function is called. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  /** Ends the connection at once; QEMU goes on. Idempotent. */
  destroy(): void {
    this.#end('the session was closed');
  }

  async #orLost<T>(ctx: Context, promise: Promise<T>): Promise<T> {
    const lost = this.lost.then((why) => {
      throw lostError('connect', why);
    });
    return abortable(ctx, Promise.race([promise, lost]));
  }

  #onData(chunk: Buffer): void {
    if (this.#lostWhy !== undefined) return;
    let messages: QmpMessage[];
    try {
      messages = this.#parser.push(chunk);
    } catch (error) {
      this.#end(messageOf(error));
      return;
    }
    for (const message of messages) this.#dispatch(message);
  }

  #dispatch(message: QmpMessage): void {
    switch (message.kind) {
      case 'greeting':
        this.#greet(message.version);
        return;
      case 'event':
        this.#countEvent(message.name);
        for (const listener of [...this.#listeners]) listener(message);
        return;
      case 'result':
        this.#take(message.id)?.resolve(message.value);
        return;
      case 'error': {
        const pending = message.id === undefined ? undefined : this.#take(message.id);
        pending?.reject(
          new HerkosError('Internal', `QEMU refused ${pending.command}: ${message.error.description}`, {
            reason: message.error.errorClass === 'DeviceNotFound' ? 'QMP_DEVICE_NOT_FOUND' : 'QMP_REFUSED',
          }),
        );
        return;
      }
    }
  }

  /** Nobody else bounds them, and each costs the daemon time. */
  #countEvent(name: string): void {
    const counts = this.#eventCounts;
    const nowMs = performance.now();
    if (nowMs - counts.sinceMs >= 1_000) Object.assign(counts, { sinceMs: nowMs, diskErrors: 0, others: 0 });
    if (name === 'BLOCK_IO_ERROR') counts.diskErrors += 1;
    else counts.others += 1;
    if (counts.diskErrors > diskErrorsPerSecondMax || counts.others > eventsPerSecondMax)
      this.#end(`QEMU sends too many events, ${name} among them: its guest may want to keep us busy`);
  }

  #take(id: string): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    return pending;
  }

  #end(why: string): void {
    if (this.#lostWhy !== undefined) return;
    this.#lostWhy = why;
    this.#socket.destroy();
    this.#listeners.clear();
    for (const pending of this.#pending.values()) pending.reject(lostError(pending.command, why));
    this.#pending.clear();
    this.#lose(why);
  }
}

function lostError(command: string, why: string): HerkosError {
  return new HerkosError('Unavailable', `QMP ${command}: the connection to QEMU is lost: ${why}`);
}

async function connectSocket(ctx: Context, path: string): Promise<Socket> {
  const socket = createConnection({ path });
  try {
    await abortable(
      ctx,
      new Promise<void>((resolve, reject) => {
        socket.once('connect', resolve);
        socket.once('error', reject);
      }),
    );
    socket.removeAllListeners();
    return socket;
  } catch (error) {
    socket.destroy();
    socket.on('error', () => undefined);
    if (error instanceof HerkosError) throw error;
    throw new HerkosError('Unavailable', `cannot connect to QEMU at ${path}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

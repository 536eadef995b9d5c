/** Decompressors behind one interface: bytes in with back-pressure, bytes out in order. */
import { spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';

import { Decompress } from 'fzstd';

import { HerkosError, isErrno, messageOf } from '../../base/errors.js';
import { MIB } from '../../base/units.js';
import type { LayerCompression } from './types.js';
import { ZstdFrames, windowBytesMax } from './zstd-frames.js';

const outputBytes = 1024 * 1024;
const zstdWindow = `--memory=${String(windowBytesMax / MIB)}MB`;
const stderrBytesMax = 4096;

export interface Decompressor {
  /** Resolves when `chunk` has been used up (its memory may be filled again) and more may come. */
  write(chunk: Buffer): Promise<void>;
  /** Resolves when all output has been delivered; rejects when the stream is cut off or broken. */
  end(): Promise<void>;
  /** Stops at once; nothing is delivered afterwards. */
  destroy(): void;
}

export type Sink = (chunk: Buffer) => void;

/** `sink` may throw: the error then comes out of `write` or `end`. */
export function openDecompressor(compression: LayerCompression, sink: Sink): Decompressor {
  switch (compression) {
    case 'gzip':
      return new Gunzip(sink);
    case 'zstd':
      return new Zstd(sink);
    case 'none':
      return plain(sink);
  }
}

function broken(error: unknown, what: string): HerkosError {
  if (error instanceof HerkosError) return error;
  return new HerkosError('DataLoss', `the layer is not valid ${what}: ${messageOf(error)}`, {
    cause: error,
    reason: 'LAYER_BROKEN_COMPRESSION',
  });
}

function plain(sink: Sink): Decompressor {
  return {
    // eslint-disable-next-line @typescript-eslint/require-await -- a throw of the sink becomes a rejection
    write: async (chunk) => {
      sink(chunk);
    },
    end: () => Promise.resolve(),
    destroy: () => undefined,
  };
}

/** zlib inflates on the thread pool while this thread hashes, parses and writes: two cores for one layer. */
class Gunzip implements Decompressor {
  readonly #stream = createGunzip({ chunkSize: outputBytes });
  readonly #done: Promise<void>;

  constructor(sink: Sink) {
    this.#stream.on('data', (chunk: Buffer) => {
      try {
        sink(chunk);
      } catch (error) {
        this.#stream.destroy(error instanceof Error ? error : new Error(String(error)));
      }
    });
    this.#done = finished(this.#stream);
    this.#done.catch(() => undefined);
  }

  async write(chunk: Buffer): Promise<void> {
    await settled(this.#stream, chunk, this.#done, 'gzip');
  }

  async end(): Promise<void> {
    this.#stream.end();
    await this.#done.catch((error: unknown) => {
      throw broken(error, 'gzip');
    });
  }

  destroy(): void {
    this.#stream.destroy();
  }
}

/** Writes and waits until the stream has used up the chunk, or says why it ended. */
async function settled(stream: Writable, chunk: Buffer, done: Promise<void>, what: string): Promise<void> {
  const written = new Promise<void>((resolve) => {
    stream.write(chunk, () => {
      resolve();
    });
  });
  try {
    await Promise.race([written, done]);
  } catch (error) {
    throw broken(error, what);
  }
}

/** `zstd -dc` where it is installed, else the same in JavaScript, which is four times slower. */
class Zstd implements Decompressor {
  readonly #sink: Sink;
  #active: Promise<Decompressor> | undefined;
  #destroyed = false;

  constructor(sink: Sink) {
    this.#sink = sink;
  }

  async write(chunk: Buffer): Promise<void> {
    await (await this.#open()).write(chunk);
  }

  async end(): Promise<void> {
    await (await this.#open()).end();
  }

  destroy(): void {
    this.#destroyed = true;
    void this.#active?.then((active) => {
      active.destroy();
    });
  }

  async #open(): Promise<Decompressor> {
    this.#active ??= ZstdProcess.start(this.#sink).then((started) => started ?? new ZstdScript(this.#sink));
    const active = await this.#active;
    if (this.#destroyed) active.destroy();
    return active;
  }
}

class ZstdProcess implements Decompressor {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #done: Promise<void>;
  #stderr = '';

  /** Undefined when the program is not installed. */
  static async start(sink: Sink): Promise<ZstdProcess | undefined> {
    const child = spawn('zstd', ['-d', '-c', '-q', zstdWindow], { stdio: ['pipe', 'pipe', 'pipe'] });
    try {
      await new Promise((resolve, reject) => {
        child.once('spawn', resolve);
        child.once('error', reject);
      });
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return undefined;
      throw error;
    }
    return new ZstdProcess(child, sink);
  }

  private constructor(child: ChildProcessByStdio<Writable, Readable, Readable>, sink: Sink) {
    this.#child = child;
    // The program ends early when it finds the data broken; its exit code tells, not our failed write.
    child.stdin.on('error', () => undefined);
    child.stderr.on('data', (text: Buffer) => {
      this.#stderr = (this.#stderr + text.toString()).slice(-stderrBytesMax);
    });
    this.#done = new Promise((resolve, reject) => {
      child.stdout.on('data', (chunk: Buffer) => {
        try {
          sink(chunk);
        } catch (error) {
          child.stdout.removeAllListeners('data');
          child.kill('SIGKILL');
          reject(error instanceof Error ? error : new Error(String(error)));
        }
      });
      child.once('close', (code) => {
        if (code === 0) resolve();
        else
          reject(
            new Error(this.#stderr.trim() === '' ? `zstd ended with ${String(code)}` : this.#stderr.trim()),
          );
      });
    });
    this.#done.catch(() => undefined);
  }

  async write(chunk: Buffer): Promise<void> {
    await settled(this.#child.stdin, chunk, this.#done, 'zstd');
  }

  async end(): Promise<void> {
    this.#child.stdin.end();
    await this.#done.catch((error: unknown) => {
      throw broken(error, 'zstd');
    });
  }

  destroy(): void {
    this.#child.stdout.removeAllListeners('data');
    this.#child.kill('SIGKILL');
  }
}

class ZstdScript implements Decompressor {
  readonly #stream: Decompress;
  readonly #frames = new ZstdFrames();
  #sawInput = false;

  constructor(sink: Sink) {
    this.#stream = new Decompress((chunk) => {
      sink(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
    });
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- synchronous work behind an asynchronous interface
  async write(chunk: Buffer): Promise<void> {
    this.#sawInput ||= chunk.length > 0;
    // The library keeps what it cannot decode yet, and the caller fills its chunk again.
    this.#push(Buffer.from(chunk), false);
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- as above
  async end(): Promise<void> {
    if (!this.#sawInput) throw broken(new Error('it is empty'), 'zstd');
    this.#push(Buffer.alloc(0), true);
  }

  destroy(): void {
    // Nothing runs between two calls.
  }

  #push(chunk: Buffer, last: boolean): void {
    // The library takes a window of any size, up to 2 GiB, at once.
    this.#frames.push(chunk);
    try {
      this.#stream.push(chunk, last);
    } catch (error) {
      throw broken(error, 'zstd');
    }
  }
}

/** One blob as a stream of verified bytes that survives broken connections and broken mirrors. */
import { createHash } from 'node:crypto';

import type { Context } from '../../base/context.js';
import { throwIfDone } from '../../base/context.js';
import { HerkosError } from '../../base/errors.js';
import type { Descriptor, ImageName } from '../../image/ports.js';
import { hexOfDigest } from '../../wire/oci/digest.js';
import { familiarBase } from '../../wire/oci/reference.js';
import type { Endpoint } from './endpoints.js';
import { AttemptFailure, dataLoss, transportFailure, unavailable } from './failure.js';
import type { RegistrySession } from './session.js';
import { asFailure } from './session.js';
import type { HttpReply } from './transport.js';

/** Where a transfer stands: how far it came and what went wrong on the way. */
interface Transfer {
  offset: number;
  /** Broken transfers in a row that brought nothing. */
  fruitless: number;
  resumes: number;
  readonly failed: Set<Endpoint>;
}

export class BlobReader {
  readonly #session: RegistrySession;
  /** Who delivered a blob whole. A caller that asks again could not use it: somebody else is asked then. */
  readonly #delivered = new Map<string, Set<Endpoint>>();

  constructor(session: RegistrySession) {
    this.#session = session;
  }

  /**
   * The blob's bytes in order. A broken transfer goes on at the byte it came to, elsewhere if need be.
   * @param verify false when the caller computes the digest itself; the size is always checked.
   * @throws HerkosError `DataLoss` at the end (or at the first byte too many) when bytes are not the blob's.
   */
  async *read(
    ctx: Context,
    name: ImageName,
    blob: Descriptor,
    verify: boolean,
  ): AsyncGenerator<Buffer, void, void> {
    const what = `${familiarBase(name)} blob ${blob.digest}`;
    const hash = verify ? createHash('sha256') : undefined;
    const transfer: Transfer = { offset: 0, fruitless: 0, resumes: 0, failed: new Set() };
    while (transfer.offset < blob.sizeBytes) {
      const endpoint = this.#choose(blob, transfer);
      const before = transfer.offset;
      try {
        for await (const part of this.#transferFrom(ctx, endpoint, name, blob, transfer.offset, what)) {
          transfer.offset += part.length;
          hash?.update(part);
          yield part;
        }
      } catch (error) {
        throwIfDone(ctx);
        await this.#afterFailure(ctx, endpoint, transfer, before, asFailure(error), blob);
      }
      if (transfer.offset === blob.sizeBytes) this.#noteDelivered(blob.digest, endpoint);
    }
    if (hash !== undefined && hash.digest('hex') !== hexOfDigest(blob.digest))
      throw dataLoss(what, 'the bytes received have another digest');
  }

  #choose(blob: Descriptor, transfer: Transfer): Endpoint {
    const avoid = new Set([...transfer.failed, ...(this.#delivered.get(blob.digest) ?? [])]);
    const endpoint = this.#session.candidates('pull', avoid)[0];
    if (endpoint === undefined) throw new HerkosError('Internal', 'a registry has no endpoint');
    return endpoint;
  }

  #noteDelivered(digest: string, endpoint: Endpoint): void {
    const known = this.#delivered.get(digest);
    if (known === undefined) this.#delivered.set(digest, new Set([endpoint]));
    else known.add(endpoint);
  }

  /** Decides how to go on: later, elsewhere, or not at all. */
  async #afterFailure(
    ctx: Context,
    endpoint: Endpoint,
    transfer: Transfer,
    before: number,
    failure: AttemptFailure,
    blob: Descriptor,
  ): Promise<void> {
    const { retry } = this.#session;
    const progressed = transfer.offset > before;
    transfer.fruitless = progressed ? 0 : transfer.fruitless + 1;
    if (progressed) transfer.resumes += 1;
    if (transfer.resumes > retry.resumesMax) throw failure.error;
    const others = this.#session.candidates(
      'pull',
      new Set([...transfer.failed, endpoint, ...(this.#delivered.get(blob.digest) ?? [])]),
    );
    const elsewhere = others.some((other) => other !== endpoint && !transfer.failed.has(other));
    if (elsewhere && (!failure.retryable || transfer.fruitless >= retry.mirrorAttemptsMax)) {
      transfer.failed.add(endpoint);
      transfer.fruitless = 0;
      return;
    }
    if (!failure.retryable || transfer.fruitless >= retry.attemptsMax) throw failure.error;
    try {
      await this.#session.pause(ctx, Math.max(1, transfer.fruitless), failure);
    } catch (error) {
      throw error instanceof AttemptFailure ? error.error : error;
    }
  }

  /** One HTTP transfer of `blob` from `offset` to its end. @throws AttemptFailure, or the context's reason. */
  async *#transferFrom(
    ctx: Context,
    endpoint: Endpoint,
    name: ImageName,
    blob: Descriptor,
    offset: number,
    what: string,
  ): AsyncGenerator<Buffer, void, void> {
    const reply = await this.#session.get(ctx, endpoint, {
      repository: name.repository,
      path: `blobs/${blob.digest}`,
      headers: { accept: '*/*', ...(offset === 0 ? {} : { range: `bytes=${String(offset)}-` }) },
      what,
    });
    let skip = 0;
    let position = offset;
    try {
      skip = checkLength(reply, blob, offset);
      for await (const part of reply.body as AsyncIterable<Buffer>) {
        const wanted = skip === 0 ? part : part.subarray(skip);
        skip -= part.length - wanted.length;
        position += wanted.length;
        if (position > blob.sizeBytes)
          throw dataLoss(reply.where, `more than the ${String(blob.sizeBytes)} bytes that the manifest says`);
        if (wanted.length > 0) yield wanted;
      }
    } catch (error) {
      throwIfDone(ctx);
      throw transportFailure(reply.where, error);
    } finally {
      reply.body.destroy();
    }
    if (position < blob.sizeBytes)
      throw new AttemptFailure(
        unavailable(reply.where, `the transfer ended ${String(blob.sizeBytes - position)} bytes early`),
        true,
      );
  }
}

/**
 * Compares what the answer promises with the blob. A server that ignores Range answers 200 with the
 * whole: the bytes that are there already are skipped.
 * @returns how many bytes to skip.
 */
function checkLength(reply: HttpReply, blob: Descriptor, offset: number): number {
  const mismatch = (size: string): HerkosError =>
    dataLoss(reply.where, `the registry has ${size} bytes, the manifest says ${String(blob.sizeBytes)}`);
  if (reply.status === 200) {
    const length = reply.header('content-length');
    if (length !== undefined && Number(length) !== blob.sizeBytes) throw mismatch(length);
    return offset;
  }
  const match = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(reply.header('content-range') ?? '');
  if (match === null || Number(match[1]) !== offset)
    throw new AttemptFailure(
      unavailable(reply.where, 'it answered with another range than the one asked for'),
      true,
    );
  if (match[2] !== '*' && Number(match[2]) !== blob.sizeBytes) throw mismatch(match[2] ?? '');
  return 0;
}

/** One output stream of a container, read from an offset on. */
import Long from 'long';

import { agent } from '#gen/agent/v1/services.js';
import { herkos } from '#gen/agent/v1/api.js';
import type { Context } from '../../base/context.js';
import { HerkosError } from '../../base/errors.js';
import { KIB } from '../../base/units.js';
import type { GuestOutput, GuestOutputChunk, OutputStreamName } from '../../pod/ports.js';
import { checkedCount, misbehaved, ownBytes } from './check.js';
import { outputChunkBytesMax } from './limits.js';
import type { GuestLink, TwoWayStream } from './link.js';

type Sent = herkos.agent.v1.ReadOutputRequest.$Properties;
type Got = herkos.agent.v1.OutputChunk;

/** A chunk and the fields around it. */
const messageBytesMax = outputChunkBytesMax + KIB;
const names = {
  stdout: herkos.agent.v1.OutputStream.OUTPUT_STREAM_STDOUT,
  stderr: herkos.agent.v1.OutputStream.OUTPUT_STREAM_STDERR,
} as const;

export interface OutputRequest {
  readonly containerId: string;
  readonly stream: OutputStreamName;
  readonly fromOffset: bigint;
}

export class OutputReader implements GuestOutput {
  readonly #ctx: Context;
  readonly #link: GuestLink;
  readonly #request: OutputRequest;
  /** Where the next chunk must begin; the first one may begin later. */
  #position: bigint;
  #hasBegun = false;
  /** At most one acknowledgement is on its way; the latest of the others waits for it. */
  #acknowledged = 0n;
  #sent = 0n;
  #blocked = false;
  #call: TwoWayStream<Sent, Got> | undefined;

  /** Nothing is asked before the first iteration. */
  constructor(ctx: Context, link: GuestLink, request: OutputRequest) {
    this.#ctx = ctx;
    this.#link = link;
    this.#request = request;
    this.#position = request.fromOffset;
  }

  /** @throws InvalidArgument beyond what was read: the guest would forget what nobody has */
  acknowledge(offset: bigint): void {
    if (offset > this.#position)
      throw new HerkosError(
        'InvalidArgument',
        `offset ${String(offset)} cannot be acknowledged; only ${String(this.#position)} bytes were read`,
      );
    if (offset <= this.#acknowledged) return;
    this.#acknowledged = offset;
    this.#sendAcknowledgement();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<GuestOutputChunk, void, void> {
    if (this.#call !== undefined)
      throw new HerkosError('FailedPrecondition', 'output is read once; open it again');
    const { containerId, stream, fromOffset } = this.#request;
    const call = this.#link.twoWay(
      this.#ctx,
      agent.readOutput,
      `reading ${stream} of ${containerId}`,
      messageBytesMax,
    );
    this.#call = call;
    call.write({ open: { containerId, stream: names[stream], fromOffset: unsigned(fromOffset) } });
    this.#sendAcknowledgement();
    for await (const message of call) {
      const chunk = this.#checked(message);
      this.#hasBegun = true;
      this.#position = chunk.offset + BigInt(chunk.data.length);
      yield chunk;
      if (chunk.end) return;
    }
    throw misbehaved(`ended ${stream} of ${containerId} without saying that it is complete`);
  }

  #checked(message: Got): GuestOutputChunk {
    const { data, end } = message;
    const { containerId, stream } = this.#request;
    // No container prints so much: the sum of what follows stays an offset, too.
    const offset = BigInt(checkedCount(message.offset, `the offset of its ${stream}`));
    if (offset < this.#position || (this.#hasBegun && offset > this.#position))
      throw new HerkosError(
        'DataLoss',
        `the guest went on with ${stream} of ${containerId} at ${String(offset)}, not at ${String(this.#position)}`,
        { reason: 'GUEST_OUTPUT_GAP' },
      );
    if (data.length > outputChunkBytesMax || (data.length === 0 && !end))
      throw misbehaved(`sent ${String(data.length)} bytes as a chunk of output`);
    return { offset, data: ownBytes(data), end };
  }

  #sendAcknowledgement(): void {
    const call = this.#call;
    if (call === undefined || this.#blocked || this.#acknowledged <= this.#sent) return;
    this.#sent = this.#acknowledged;
    if (call.write({ acknowledgedOffset: unsigned(this.#sent) })) return;
    this.#blocked = true;
    call.onDrain(() => {
      this.#blocked = false;
      this.#sendAcknowledgement();
    });
  }
}

function unsigned(value: bigint): Long {
  return Long.fromString(value.toString(), true);
}

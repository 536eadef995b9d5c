/**
 * One connection to a guest's agent: a gRPC channel that has exactly one socket in its life. When the
 * socket ends, the link is lost; it never connects again by itself. All calls go through here, where they
 * get their context, and where they end when the link does.
 */
import type { Socket } from 'node:net';

import { ChannelCredentials, Client, Metadata } from '@grpc/grpc-js';
import type { ChannelOptions, ClientDuplexStream, ClientReadableStream } from '@grpc/grpc-js';

import type { Context } from '../../base/context.js';
import { abortable, throwIfDone, withTimeout } from '../../base/context.js';
import { HerkosError } from '../../base/errors.js';
import type { Method } from '#gen/agent/v1/services.js';
import { callError, lostConnection } from './faults.js';
import {
  keepaliveTimeMs,
  keepaliveTimeoutMs,
  messageBytesMax,
  sessionMemoryMib,
  unaryTimeoutMs,
} from './limits.js';

const millisecondsMax = 2 ** 31 - 1;

const channelOptions: ChannelOptions = {
  // The path of a socket is no authority that servers take.
  'grpc.default_authority': 'localhost',
  'grpc.enable_http_proxy': 0,
  'grpc.enable_retries': 0,
  // Nothing is retried, so nothing needs to be kept for it; otherwise writes never have to wait, and what
  // a guest does not read grows without bound.
  'grpc.per_rpc_retry_buffer_size': 0,
  'grpc.service_config_disable_resolution': 1,
  // Otherwise a new link to the same path would get the old link's connection.
  'grpc.use_local_subchannel_pool': 1,
  'grpc.max_receive_message_length': messageBytesMax,
  'grpc.max_send_message_length': messageBytesMax,
  'grpc.client_idle_timeout_ms': millisecondsMax,
  'grpc.keepalive_time_ms': keepaliveTimeMs,
  'grpc.keepalive_timeout_ms': keepaliveTimeoutMs,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc-node.max_session_memory': sessionMemoryMib,
};

type SecureConnector = ReturnType<ChannelCredentials['_createSecureConnector']>;

/**
 * Plain connections, of which the socket is ours to watch and to destroy: closing a channel politely waits
 * for a guest that may never read again.
 */
class OneSocketCredentials extends ChannelCredentials {
  readonly #inner = ChannelCredentials.createInsecure();
  readonly #adopt: (socket: Socket) => void;

  constructor(adopt: (socket: Socket) => void) {
    super();
    this.#adopt = adopt;
  }

  override _isSecure(): boolean {
    return false;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(
    ...parameters: Parameters<ChannelCredentials['_createSecureConnector']>
  ): SecureConnector {
    const inner = this.#inner._createSecureConnector(...parameters);
    return {
      connect: async (socket) => {
        this.#adopt(socket);
        return inner.connect(socket);
      },
      waitForReady: () => inner.waitForReady(),
      getCallCredentials: () => inner.getCallCredentials(),
      destroy: () => {
        inner.destroy();
      },
    };
  }
}

interface Cancellable {
  cancel(): void;
}

type Unary<Sent, Got> = Method<Sent, unknown, unknown, Got, false, false>;
type ServerStream<Sent, Got> = Method<Sent, unknown, unknown, Got, false, true>;
type BothStreams<Sent, Got> = Method<Sent, unknown, unknown, Got, true, true>;

/** An open call whose answers are a stream. Iterate it once; leaving the loop ends the call. */
export interface AnswerStream<Got> {
  [Symbol.asyncIterator](): AsyncGenerator<Got, void, void>;
}

/** The same, to which one can go on sending. */
export interface TwoWayStream<Sent, Got> extends AnswerStream<Got> {
  /** Queues a message; true when it went out at once, otherwise wait for `onDrain`. */
  write(message: Sent): boolean;
  onDrain(then: () => void): void;
  /** No more will be sent. */
  end(): void;
}

export class GuestLink {
  /** Settles when the connection is gone, whoever ended it; never rejects. */
  readonly lost: Promise<void>;
  readonly #client: Client;
  readonly #calls = new Set<Cancellable>();
  #socket: Socket | undefined;
  #isLost = false;
  #tellLost: () => void = () => undefined;

  /** Connects when the first call is made. */
  constructor(socketPath: string) {
    this.lost = new Promise((resolve) => {
      this.#tellLost = resolve;
    });
    const credentials = new OneSocketCredentials((socket) => {
      this.#adopt(socket);
    });
    this.#client = new Client(`unix:${socketPath}`, credentials, channelOptions);
  }

  /** Ends the connection at once. Idempotent. */
  destroy(): void {
    if (this.#isLost) return;
    this.#isLost = true;
    this.#client.close();
    // A destroyed socket fails the calls by itself, but not those that still wait for a connection.
    for (const call of [...this.#calls]) call.cancel();
    this.#socket?.destroy();
    this.#tellLost();
  }

  /** One request, one answer. @throws the context's reason, or what the call failed with */
  async call<Sent, Got>(ctx: Context, method: Unary<Sent, Got>, message: Sent, what: string): Promise<Got> {
    this.#checkOpen(ctx);
    const step = withTimeout(ctx, unaryTimeoutMs, what);
    let stop: () => void = () => undefined;
    try {
      const answer = new Promise<Got>((resolve, reject) => {
        const call = this.#client.makeUnaryRequest(
          method.path,
          (sent: Sent) => method.requestSerialize(sent),
          (wire) => method.responseDeserialize(wire),
          message,
          new Metadata(),
          (error, got) => {
            if (got !== undefined) resolve(got);
            else reject(error ?? new HerkosError('Internal', `${what}: no answer`));
          },
        );
        stop = this.#track(step, call);
      });
      return await abortable(step, answer);
    } catch (error) {
      throw this.#reason(step, error, what);
    } finally {
      stop();
      step.cancel();
    }
  }

  /** A stream of answers, none of them larger than `answerBytesMax`. */
  answers<Sent, Got>(
    ctx: Context,
    method: ServerStream<Sent, Got>,
    message: Sent,
    what: string,
    answerBytesMax: number,
  ): AnswerStream<Got> {
    this.#checkOpen(ctx);
    const call = this.#client.makeServerStreamRequest(
      method.path,
      (sent: Sent) => method.requestSerialize(sent),
      bounded(method, answerBytesMax),
      message,
      new Metadata(),
    );
    return this.#stream(ctx, call, what);
  }

  /** Streams in both directions; the answers are not larger than `answerBytesMax`. */
  twoWay<Sent, Got>(
    ctx: Context,
    method: BothStreams<Sent, Got>,
    what: string,
    answerBytesMax: number,
  ): TwoWayStream<Sent, Got> {
    this.#checkOpen(ctx);
    const call: ClientDuplexStream<Sent, Got> = this.#client.makeBidiStreamRequest(
      method.path,
      (sent: Sent) => method.requestSerialize(sent),
      bounded(method, answerBytesMax),
      new Metadata(),
    );
    return Object.assign(this.#stream(ctx, call, what), {
      write: (message: Sent) => (call.destroyed || call.writableEnded ? true : call.write(message)),
      onDrain: (then: () => void) => call.once('drain', then),
      end: () => call.end(),
    });
  }

  #stream<Got>(ctx: Context, call: ClientReadableStream<Got>, what: string): AnswerStream<Got> {
    // An error between two reads has no listener otherwise, which would end this process.
    call.on('error', () => undefined);
    const stop = this.#track(ctx, call);
    const reason = (error: unknown): HerkosError => this.#reason(ctx, error, what);
    const isOver = (): boolean => ctx.signal.aborted || this.#isLost;
    async function* iterate(): AsyncGenerator<Got, void, void> {
      try {
        // What was received before the end of the context or the link is not delivered after it.
        for await (const message of call) {
          if (isOver()) throw reason(undefined);
          yield message as Got;
        }
        if (isOver()) throw reason(undefined);
      } catch (error) {
        throw reason(error);
      } finally {
        stop();
        call.cancel();
      }
    }
    return { [Symbol.asyncIterator]: iterate };
  }

  #adopt(socket: Socket): void {
    if (this.#isLost || this.#socket !== undefined) {
      socket.destroy();
      return;
    }
    this.#socket = socket;
    socket.once('close', () => {
      this.destroy();
    });
  }

  #checkOpen(ctx: Context): void {
    throwIfDone(ctx);
    if (this.#isLost) throw lostConnection();
  }

  /** Cancels the call when the context ends; the function returned forgets it. */
  #track(ctx: Context, call: Cancellable): () => void {
    const cancel = (): void => {
      call.cancel();
    };
    this.#calls.add(call);
    ctx.signal.addEventListener('abort', cancel, { once: true });
    return () => {
      this.#calls.delete(call);
      ctx.signal.removeEventListener('abort', cancel);
    };
  }

  /** Why a call ended: first our own reasons, then what the guest or the channel said. */
  #reason(ctx: Context, error: unknown, what: string): HerkosError {
    try {
      throwIfDone(ctx);
    } catch (reason) {
      if (reason instanceof HerkosError) return reason;
    }
    if (this.#isLost) return lostConnection();
    return callError(error, what);
  }
}

/** The size is looked at before the message is decoded and queued: a stream's reader holds several. */
function bounded<Sent, Got>(
  method: Method<Sent, unknown, unknown, Got, boolean, boolean>,
  answerBytesMax: number,
): (wire: Buffer) => Got {
  return (wire) => {
    if (wire.length > answerBytesMax)
      throw new Error(`a message of ${String(wire.length)} bytes, more than ${String(answerBytesMax)}`);
    return method.responseDeserialize(wire);
  };
}

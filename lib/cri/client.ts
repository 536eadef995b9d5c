import { Client, Metadata, credentials, status } from '@grpc/grpc-js';
import type { CallOptions, ClientReadableStream, ServiceError } from '@grpc/grpc-js';

import type { Method } from '#gen/cri/v1/services.js';

import type { Context } from '../base/context.js';
import { abortable, throwIfDone } from '../base/context.js';
import type { ErrorClass } from '../base/errors.js';
import { HerkosError } from '../base/errors.js';
import { reasonTrailer, statusCodes } from './grpc-error.js';
import { messageBytesMax } from './server.js';

/** A gRPC client of the daemon's socket, for herkosctl and for tests. Errors come back as HerkosError. */
export class SocketClient {
  readonly #client: Client;
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
    this.#client = new Client(`unix:${socketPath}`, credentials.createInsecure(), {
      'grpc.max_receive_message_length': messageBytesMax,
      'grpc.max_send_message_length': messageBytesMax,
      // The authority that CRI clients send; a path is not one.
      'grpc.default_authority': 'localhost',
    });
  }

  /** One question, one answer. Cancels the call when the context ends. */
  async call<RequestSent, Response>(
    ctx: Context,
    method: Method<RequestSent, unknown, unknown, Response, false, false>,
    request: RequestSent,
  ): Promise<Response> {
    throwIfDone(ctx);
    const { promise, cancel } = this.#start(ctx, method, request);
    ctx.signal.addEventListener('abort', cancel, { once: true });
    try {
      return await abortable(ctx, promise);
    } finally {
      ctx.signal.removeEventListener('abort', cancel);
    }
  }

  /** One question, many answers. Cancels the call when the context ends or the loop is left. */
  async *stream<RequestSent, Response>(
    ctx: Context,
    method: Method<RequestSent, unknown, unknown, Response, false, true>,
    request: RequestSent,
  ): AsyncGenerator<Response, void> {
    throwIfDone(ctx);
    const call: ClientReadableStream<Response> = this.#client.makeServerStreamRequest(
      method.path,
      (message: RequestSent) => method.requestSerialize(message),
      (wire) => method.responseDeserialize(wire),
      request,
      new Metadata(),
      callOptions(ctx),
    );
    const cancel = (): void => {
      call.cancel();
    };
    ctx.signal.addEventListener('abort', cancel, { once: true });
    try {
      for await (const message of call) yield message as Response;
    } catch (error) {
      throw this.#fromStatus(error);
    } finally {
      ctx.signal.removeEventListener('abort', cancel);
      call.cancel();
    }
  }

  close(): void {
    this.#client.close();
  }

  #start<RequestSent, Response>(
    ctx: Context,
    method: Method<RequestSent, unknown, unknown, Response, false, false>,
    request: RequestSent,
  ): { promise: Promise<Response>; cancel: () => void } {
    let cancel = (): void => undefined;
    const promise = new Promise<Response>((resolve, reject) => {
      const call = this.#client.makeUnaryRequest<RequestSent, Response>(
        method.path,
        (message) => method.requestSerialize(message),
        (wire) => method.responseDeserialize(wire),
        request,
        new Metadata(),
        callOptions(ctx),
        (error, response) => {
          if (error !== null) reject(this.#fromStatus(error));
          else if (response === undefined)
            reject(new HerkosError('Internal', `${method.path} gave no answer`));
          else resolve(response);
        },
      );
      cancel = () => {
        call.cancel();
      };
    });
    return { promise, cancel };
  }

  #fromStatus(error: unknown): HerkosError {
    if (!isServiceError(error)) return new HerkosError('Internal', String(error), { cause: error });
    const errorClass = classOfCode(error.code);
    const reason = error.metadata.get(reasonTrailer)[0]?.toString();
    const lost = error.code === status.UNAVAILABLE && reason === undefined;
    const message = lost ? unreachable(this.#socketPath, error.details) : error.details;
    return new HerkosError(errorClass, message, {
      cause: error,
      ...(reason === undefined ? {} : { reason }),
    });
  }
}

/** What the transport says, in the words of somebody who can do something about it. */
function unreachable(socketPath: string, details: string): string {
  switch (/connect (E[A-Z]+)/.exec(details)?.[1]) {
    case 'ENOENT':
      return `there is no socket ${socketPath}; does the daemon run, and does it use this socket?`;
    case 'ECONNREFUSED':
      return `nobody serves on ${socketPath}; does the daemon run?`;
    case 'EACCES':
      return `you may not use ${socketPath}; only its owner and group may`;
    default:
      return `the connection to ${socketPath} was lost: ${details}`;
  }
}

/** The server learns of the deadline too, and stops its work by itself. */
function callOptions(ctx: Context): CallOptions {
  return Number.isFinite(ctx.deadlineMs) ? { deadline: ctx.deadlineMs } : {};
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error && 'metadata' in error;
}

function classOfCode(code: status): ErrorClass {
  const found = (Object.keys(statusCodes) as ErrorClass[]).find((name) => statusCodes[name] === code);
  return found ?? 'Unknown';
}

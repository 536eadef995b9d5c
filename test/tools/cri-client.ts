/** A CRI client as the kubelet is one: plain gRPC over the socket, 16 MiB messages, authority `localhost`. */
import { Client, credentials, Metadata } from '@grpc/grpc-js';

import { imageService, runtimeService } from '#gen/cri/v1/services.js';

interface UnaryMethod<Sent, Received> {
  readonly path: string;
  requestSerialize(message: Sent): Buffer;
  responseDeserialize(wire: Buffer): Received;
}

export interface CallOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

const callTimeoutMs = 120_000;
const messageBytesMax = 16 * 1024 * 1024;

export class CriClient {
  readonly #client: Client;

  constructor(socketPath: string) {
    this.#client = new Client(`unix:${socketPath}`, credentials.createInsecure(), {
      'grpc.default_authority': 'localhost',
      'grpc.max_receive_message_length': messageBytesMax,
      'grpc.initial_reconnect_backoff_ms': 50,
      'grpc.max_reconnect_backoff_ms': 200,
    });
  }

  /** One method of RuntimeService; rejects with grpc-js's ServiceError (`code`, `details`). */
  async runtime<Name extends UnaryName<typeof runtimeService>>(
    name: Name,
    request: Sent<(typeof runtimeService)[Name]>,
    options: CallOptions = {},
  ): Promise<Received<(typeof runtimeService)[Name]>> {
    return this.#call(runtimeService[name] as never, request as never, options);
  }

  /** One method of ImageService. */
  async image<Name extends UnaryName<typeof imageService>>(
    name: Name,
    request: Sent<(typeof imageService)[Name]>,
    options: CallOptions = {},
  ): Promise<Received<(typeof imageService)[Name]>> {
    return this.#call(imageService[name] as never, request as never, options);
  }

  close(): void {
    this.#client.close();
  }

  async #call<S, R>(method: UnaryMethod<S, R>, request: S, options: CallOptions): Promise<R> {
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        method.path,
        (message: S) => method.requestSerialize(message),
        (wire: Buffer) => method.responseDeserialize(wire),
        request,
        new Metadata({ waitForReady: true }),
        { deadline: Date.now() + (options.timeoutMs ?? callTimeoutMs) },
        (error, response) => {
          if (error !== null) reject(error);
          else if (response === undefined) reject(new Error('an empty answer'));
          else resolve(response);
        },
      );
      options.signal?.addEventListener('abort', () => {
        call.cancel();
      });
    });
  }
}

type UnaryName<Service> = {
  [Name in keyof Service]: Service[Name] extends { requestStream: false; responseStream: false }
    ? Name
    : never;
}[keyof Service];

type Sent<M> = M extends { requestSerialize(message: infer Message): Buffer } ? Message : never;
type Received<M> = M extends { responseDeserialize(wire: Buffer): infer Message } ? Message : never;

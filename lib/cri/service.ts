/** Turns handlers into what a gRPC server serves; an RPC without a handler answers UNIMPLEMENTED. */
import type {
  MethodDefinition,
  ServerUnaryCall,
  ServerWritableStream,
  UntypedHandleCall,
  sendUnaryData,
} from '@grpc/grpc-js';

import type { Method } from '#gen/cri/v1/services.js';

import { HerkosError } from '../base/errors.js';
import { callContext } from './call-context.js';
import { EncodedResponse } from './encoded-list.js';
import { toServiceError } from './grpc-error.js';
import type { CriParts, UnaryHandler } from './parts.js';
import type { ServedService } from './server.js';

/** The handler type of each unary RPC of a generated service definition. */
export type UnaryHandlers<Service> = {
  readonly [
    Name in keyof Service as Service[Name] extends Method<
      infer _RequestSent,
      infer _Request,
      infer _ResponseSent,
      infer _Response,
      false,
      false
    >
      ? Name
      : never
  ]?: Service[Name] extends Method<
    infer _RequestSent,
    infer Request,
    infer ResponseSent,
    infer _Response,
    false,
    false
  >
    ? UnaryHandler<Request, ResponseSent>
    : never;
};

type AnyMethod = Method<never, unknown, never, unknown, boolean, boolean>;

type AnyUnaryHandler = UnaryHandler<unknown, unknown>;

/** @param service a generated definition whose methods `handlers` serves, in part or in full */
export function implement<Service extends Record<keyof Service, AnyMethod>>(
  service: Service,
  handlers: UnaryHandlers<Service>,
  parts: CriParts,
): ServedService {
  const methods = Object.entries<AnyMethod>(service);
  const table = new Map(Object.entries(handlers as Record<string, AnyUnaryHandler>));
  const definition = Object.fromEntries(methods.map(([name, method]) => [name, withEncoded(method)]));
  const implementation = Object.fromEntries<UntypedHandleCall>(
    methods.map(([name, { path, responseStream }]) => {
      const rpc = path.slice(path.lastIndexOf('/') + 1);
      if (responseStream) return [name, unimplementedStream(rpc, parts)];
      return [name, serveUnary(rpc, table.get(name) ?? unimplemented(rpc), parts)];
    }),
  );
  return { definition, implementation };
}

/** Lets bytes that are a response already pass as they are. */
function withEncoded(method: AnyMethod): MethodDefinition<unknown, unknown> {
  return {
    ...method,
    responseSerialize: (response: unknown) =>
      response instanceof EncodedResponse ? response.bytes : method.responseSerialize(response as never),
  } as MethodDefinition<unknown, unknown>;
}

function unimplemented(rpc: string): AnyUnaryHandler {
  return () => {
    throw unimplementedError(rpc);
  };
}

function unimplementedStream(rpc: string, parts: CriParts) {
  return (call: ServerWritableStream<unknown, unknown>): void => {
    call.emit('error', toServiceError(unimplementedError(rpc), rpc, parts.log));
  };
}

function unimplementedError(rpc: string): HerkosError {
  return new HerkosError('Unimplemented', `${rpc} is not implemented by this version of herkos`);
}

function serveUnary(rpc: string, handler: AnyUnaryHandler, parts: CriParts) {
  return (call: ServerUnaryCall<unknown, unknown>, answer: sendUnaryData<unknown>): void => {
    const ctx = callContext(call, rpc);
    const startedMs = performance.now();
    // The handler runs inside `then`, so that what it throws at once is an answer too.
    Promise.resolve()
      .then(() => handler(ctx, call.request, parts))
      .then(
        (response) => {
          answer(null, response);
        },
        (error: unknown) => {
          answer(toServiceError(error, rpc, parts.log));
        },
      )
      .finally(() => {
        ctx.cancel();
        parts.log.debug('request done', { rpc, ms: Math.round(performance.now() - startedMs) });
      })
      .catch((error: unknown) => {
        // Only `answer` can bring us here: a response that cannot be encoded.
        answer(toServiceError(error, rpc, parts.log));
      });
  };
}

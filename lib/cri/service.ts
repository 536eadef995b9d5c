/** Turns handlers into what a gRPC server serves; an RPC without a handler answers UNIMPLEMENTED. */
import type {
  MethodDefinition,
  ServerUnaryCall,
  ServerWritableStream,
  UntypedHandleCall,
  sendUnaryData,
} from '@grpc/grpc-js';

import type { Method } from '#gen/cri/v1/services.js';

import type { ErrorClass } from '../base/errors.js';
import { HerkosError, classOf, messageOf } from '../base/errors.js';
import { callContext } from './call-context.js';
import { EncodedResponse } from './encoded-list.js';
import { toServiceError } from './grpc-error.js';
import type { CriParts, StreamHandler, UnaryHandler } from './parts.js';
import type { ServedService } from './server.js';

type HandlerOf<M> =
  M extends Method<infer _RequestSent, infer Request, infer ResponseSent, infer _Response, false, false>
    ? UnaryHandler<Request, ResponseSent>
    : M extends Method<infer _RequestSent, infer Request, infer ResponseSent, infer _Response, false, true>
      ? StreamHandler<Request, ResponseSent>
      : never;

/** Handlers for some or all RPCs of a generated service definition. */
export type Handlers<Service> = { readonly [Name in keyof Service]?: HandlerOf<Service[Name]> };

type AnyMethod = Method<never, unknown, never, unknown, boolean, boolean>;

type AnyUnaryHandler = UnaryHandler<unknown, unknown>;
type AnyStreamHandler = StreamHandler<unknown, unknown>;

/** @param service a generated definition whose methods `handlers` serves, in part or in full */
export function implement<Service extends Record<keyof Service, AnyMethod>>(
  service: Service,
  handlers: Handlers<Service>,
  parts: CriParts,
): ServedService {
  const methods = Object.entries<AnyMethod>(service);
  const table = new Map(Object.entries(handlers));
  const definition = Object.fromEntries(methods.map(([name, method]) => [name, withEncoded(method)]));
  const implementation = Object.fromEntries<UntypedHandleCall>(
    methods.map(([name, { path, responseStream }]) => {
      const rpc = rpcOf(path);
      const handler = table.get(name) ?? unimplemented(rpc.method);
      // Which of the two it is follows from the type of `handlers`.
      if (responseStream) return [name, serveStream(rpc, handler as AnyStreamHandler, parts)];
      return [name, serveUnary(rpc, handler as AnyUnaryHandler, parts)];
    }),
  );
  return { definition, implementation };
}

/** One RPC by its names, such as `RuntimeService` and `Version`. */
interface Rpc {
  readonly service: string;
  readonly method: string;
}

/** @param path `/package.Service/Method` */
function rpcOf(path: string): Rpc {
  const [service = '', method = ''] = path.slice(path.lastIndexOf('.') + 1).split('/');
  return { service, method };
}

/** Lets bytes that are a response already pass as they are. */
function withEncoded(method: AnyMethod): MethodDefinition<unknown, unknown> {
  return {
    ...method,
    responseSerialize: (response: unknown) =>
      response instanceof EncodedResponse ? response.bytes : method.responseSerialize(response as never),
  } as MethodDefinition<unknown, unknown>;
}

function unimplemented(rpc: string): () => never {
  return () => {
    throw new HerkosError('Unimplemented', `${rpc} is not implemented by this version of herkos`);
  };
}

function serveUnary({ service, method }: Rpc, handler: AnyUnaryHandler, parts: CriParts) {
  return (call: ServerUnaryCall<unknown, unknown>, answer: sendUnaryData<unknown>): void => {
    const ctx = callContext(call, method);
    const startedMs = performance.now();
    const refuse = (error: unknown): void => {
      answer(toServiceError(error, method, parts.log));
      done(classOf(error));
    };
    const done = (outcome: 'OK' | ErrorClass): void => {
      const ms = performance.now() - startedMs;
      parts.log.debug('request done', { rpc: method, ms: Math.round(ms) });
      parts.observer?.rpcDone(service, method, outcome, ms);
    };
    // The handler runs inside `then`, so that what it throws at once is an answer too.
    Promise.resolve()
      .then(() => handler(ctx, call.request, parts))
      .then((response) => {
        answer(null, response);
        done('OK');
      }, refuse)
      .finally(() => {
        ctx.cancel();
      })
      // Only `answer` can bring us here: a response that cannot be encoded.
      .catch(refuse);
  };
}

function serveStream({ service, method }: Rpc, handler: AnyStreamHandler, parts: CriParts) {
  return (call: ServerWritableStream<unknown, unknown>): void => {
    const ctx = callContext(call, method);
    const startedMs = performance.now();
    const done = (outcome: 'OK' | ErrorClass): void => {
      parts.observer?.rpcDone(service, method, outcome, performance.now() - startedMs);
    };
    const send = (response: unknown): void => {
      if (!ctx.signal.aborted) call.write(response);
    };
    Promise.resolve()
      .then(() => handler(ctx, call.request, parts, send))
      .then(
        () => {
          call.end();
          done('OK');
        },
        (error: unknown) => {
          call.emit('error', toServiceError(error, method, parts.log));
          done(classOf(error));
        },
      )
      .finally(() => {
        ctx.cancel();
      })
      .catch((error: unknown) => {
        parts.log.error('cannot end a stream', { rpc: method, error: messageOf(error) });
      });
  };
}

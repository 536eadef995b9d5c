import type { Context } from '../base/context.js';
import type { Logger } from '../base/logger.js';
import type { EncodedResponse } from './encoded-list.js';
import type { Images, NodeInfo, Pods, RpcObserver } from './ports.js';

/** What handlers work with. */
export interface CriParts {
  readonly pods: Pods;
  readonly images: Images;
  readonly node: NodeInfo;
  readonly log: Logger;
  readonly observer?: RpcObserver | undefined;
}

/** One RPC verb: checks the request, calls a room, shapes the answer. Throws HerkosError. */
export type UnaryHandler<Request, Response> = (
  ctx: Context,
  request: Request,
  parts: CriParts,
) => Response | EncodedResponse | Promise<Response>;

/** One RPC verb that answers with a stream; `send` after the end of the context does nothing. */
export type StreamHandler<Request, Response> = (
  ctx: Context,
  request: Request,
  parts: CriParts,
  send: (response: Response) => void,
) => Promise<void>;

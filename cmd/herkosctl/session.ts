import { imageService, runtimeService } from '#gen/cri/v1/services.js';
import type { Method } from '#gen/cri/v1/services.js';

import type { Context } from '../../lib/base/context.js';
import { withTimeout } from '../../lib/base/context.js';
import type { SocketClient } from '../../lib/cri/client.js';
import type { Output } from './output.js';

/** Every question that the daemon answers from memory. */
const quickTimeoutMs = 10_000;
/** Whatever starts or ends a machine; the kubelet gives a sandbox as much. */
const slowTimeoutMs = 240_000;

/** What a command works with: the daemon, the terminal, and the time until somebody presses Ctrl-C. */
export class Session {
  readonly rpc = { ...runtimeService, ...imageService };

  constructor(
    readonly ctx: Context,
    readonly client: SocketClient,
    readonly output: Output,
  ) {}

  async quick<RequestSent, Response>(
    method: Method<RequestSent, unknown, unknown, Response, false, false>,
    request: RequestSent,
  ): Promise<Response> {
    return this.#call(this.ctx, quickTimeoutMs, method, request);
  }

  /** @param moreMs added to the time that the daemon has, such as a grace period */
  async slow<RequestSent, Response>(
    method: Method<RequestSent, unknown, unknown, Response, false, false>,
    request: RequestSent,
    moreMs = 0,
    ctx = this.ctx,
  ): Promise<Response> {
    return this.#call(ctx, slowTimeoutMs + moreMs, method, request);
  }

  async #call<RequestSent, Response>(
    parent: Context,
    timeoutMs: number,
    method: Method<RequestSent, unknown, unknown, Response, false, false>,
    request: RequestSent,
  ): Promise<Response> {
    const ctx = withTimeout(parent, timeoutMs, method.path);
    try {
      return await this.client.call(ctx, method, request);
    } finally {
      ctx.cancel();
    }
  }
}

/** Connections to the agents of guests, over the unix socket that is the host's end of an agent's port. */
import { randomBytes } from 'node:crypto';

import { agent } from '#gen/agent/v1/services.js';
import { herkos } from '#gen/agent/v1/api.js';
import type { Context } from '../../base/context.js';
import { sleep, throwIfDone } from '../../base/context.js';
import { HerkosError, classOf, messageOf } from '../../base/errors.js';
import type { GuestConnector, GuestInfo } from '../../pod/ports.js';
import { checkedCount, checkedNumber, cleanText } from './check.js';
import { GuestConnection } from './connection.js';
import {
  connectAttemptsMax,
  connectRetryFirstMs,
  connectRetryMaxMs,
  cpusMax,
  entropyBytes,
  wordLengthMax,
} from './limits.js';
import { GuestLink } from './link.js';

const { PROTOCOL_VERSION_1: protocolVersion } = herkos.agent.v1.ProtocolVersion;

export class AgentConnector implements GuestConnector {
  /**
   * A guest that still boots is waited for without polling: what is sent stays in the socket until the
   * agent opens its port. A guest whose last connection was cut may first send what was left of that,
   * which is no HTTP/2: then a new connection is made.
   */
  async connect(ctx: Context, agentSocketPath: string, machineId: string): Promise<GuestConnection> {
    let delayMs = connectRetryFirstMs;
    let last: unknown;
    for (let attempt = 1; attempt <= connectAttemptsMax; attempt += 1) {
      try {
        return await this.#attempt(ctx, agentSocketPath, machineId);
      } catch (error) {
        if (ctx.signal.aborted) throw ended(ctx, last);
        if (!isWorthAnother(error)) throw error;
        last = error;
      }
      await sleep(ctx, delayMs).catch(() => {
        throw ended(ctx, last);
      });
      delayMs = Math.min(delayMs * 2, connectRetryMaxMs);
    }
    throw new HerkosError('Unavailable', `the guest cannot be spoken with: ${messageOf(last)}`, {
      cause: last,
    });
  }

  async #attempt(ctx: Context, agentSocketPath: string, machineId: string): Promise<GuestConnection> {
    const link = new GuestLink(agentSocketPath);
    try {
      const request = {
        protocolVersion,
        entropy: randomBytes(entropyBytes),
        machineId: Buffer.from(machineId, 'hex'),
      };
      const answer = await link.call(ctx, agent.hello, request, 'saying hello to the guest');
      return new GuestConnection(link, checkedInfo(answer));
    } catch (error) {
      link.destroy();
      throw error;
    }
  }
}

/** The connection came about and broke, or it held no HTTP/2. Nobody listening at all is not worth waiting. */
function isWorthAnother(error: unknown): boolean {
  if (classOf(error) !== 'Unavailable') return false;
  return !/\b(ENOENT|ECONNREFUSED|EACCES|ENOTSOCK)\b/.test(messageOf(error));
}

/** The context's reason, with what was seen before it. */
function ended(ctx: Context, last: unknown): HerkosError {
  try {
    throwIfDone(ctx);
  } catch (reason) {
    if (last === undefined && reason instanceof HerkosError) return reason;
    return new HerkosError(classOf(reason), `${messageOf(reason)}; before that: ${messageOf(last)}`, {
      cause: reason,
    });
  }
  return new HerkosError('Unavailable', messageOf(last), { cause: last });
}

function checkedInfo(answer: herkos.agent.v1.HelloResponse): GuestInfo {
  if (answer.protocolVersion !== protocolVersion)
    throw new HerkosError(
      'FailedPrecondition',
      `the guest's agent speaks protocol version ${String(answer.protocolVersion)}, this daemon ` +
        `version ${String(protocolVersion)}; use the guest image that was built with this release`,
      { reason: 'GUEST_PROTOCOL_VERSION' },
    );
  return {
    agentVersion: cleanText(answer.agentVersion, wordLengthMax),
    kernelRelease: cleanText(answer.kernelRelease, wordLengthMax),
    ociRuntimeVersion: cleanText(answer.ociRuntimeVersion, wordLengthMax),
    bootMs: checkedCount(answer.bootMilliseconds, 'its boot time'),
    memoryBytes: checkedCount(answer.memoryBytes, 'its memory'),
    cpus: checkedNumber(answer.cpus, 'its number of CPUs', cpusMax),
  };
}

import type { Context } from '../base/context.js';
import { messageOf } from '../base/errors.js';
import { runtimeHandlers } from '../model/runtime.js';
import type { v1 } from './api.js';
import { verboseInfo } from './info.js';
import type { CriParts } from './parts.js';

interface Condition {
  readonly ready: boolean;
  readonly reason: string;
  readonly message: string;
}

/** Asked every few seconds: a condition that cannot be found out is false, and never an error. */
export async function status(
  ctx: Context,
  request: v1.StatusRequest,
  { node, pods }: CriParts,
): Promise<v1.StatusResponse.$Properties> {
  const [runtime, network] = await Promise.all([
    orFalse('RuntimeCheckFailed', () => node.health()),
    orFalse('NetworkCheckFailed', () => pods.networkStatus(ctx)),
  ]);
  return {
    status: { conditions: [encode('RuntimeReady', runtime), encode('NetworkReady', network)] },
    runtimeHandlers: runtimeHandlers.map((name) => ({
      name,
      features: { recursiveReadOnlyMounts: false, userNamespaces: false },
    })),
    features: { supplementalGroupsPolicy: true, userNamespacesHostNetwork: false, mountOptions: false },
    info: await verboseInfo(request.verbose, () => node.describe(), 'config'),
  };
}

async function orFalse(reason: string, check: () => Promise<Condition>): Promise<Condition> {
  try {
    return await check();
  } catch (error) {
    return { ready: false, reason, message: messageOf(error) };
  }
}

function encode(type: string, condition: Condition): v1.RuntimeCondition.$Properties {
  const { ready, reason, message } = condition;
  return { type, status: ready, reason: ready ? '' : reason, message: ready ? '' : message };
}

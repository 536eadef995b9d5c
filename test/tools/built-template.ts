import { admin } from '#gen/admin/v1/services.js';

import type { Context } from '../../lib/base/context.js';
import { withTimeout } from '../../lib/base/context.js';
import { SocketClient } from '../../lib/cri/client.js';
import { defaultDomain } from '../../lib/model/vm.js';

const timeoutMs = 180_000;

/** Waits for the template that pods are cloned from, as herkosctl asks for it. @throws what keeps it from being built */
export async function builtTemplate(ctx: Context, socketPath: string): Promise<void> {
  const client = new SocketClient(socketPath);
  const patience = withTimeout(ctx, timeoutMs, 'building a template');
  try {
    const progress = client.stream(patience, admin.buildTemplate, { domain: defaultDomain });
    while ((await progress.next()).done !== true);
  } finally {
    patience.cancel();
    client.close();
  }
}

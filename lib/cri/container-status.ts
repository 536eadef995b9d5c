import type { Context } from '../base/context.js';
import type { v1 } from './api.js';
import { requiredText } from './checks.js';
import { encodeContainerStatus } from './container-codec.js';
import { verboseInfo } from './info.js';
import type { CriParts } from './parts.js';

/** @throws NotFound, which tells the kubelet that the container is gone */
export async function containerStatus(
  _ctx: Context,
  request: v1.ContainerStatusRequest,
  { pods }: CriParts,
): Promise<v1.ContainerStatusResponse.$Properties> {
  const record = pods.container(requiredText(request.containerId, 'container_id'));
  // The environment may hold secrets of the pod, so it is left out of what people paste into tickets.
  const info = await verboseInfo(request.verbose, () => ({
    sandboxId: record.sandboxId,
    phase: record.phase,
    command: record.config.command,
    args: record.config.args,
    workingDir: record.config.workingDir,
    tty: record.config.tty,
    privileged: record.config.security.privileged,
    seccomp: record.config.security.seccomp.type,
  }));
  return { status: encodeContainerStatus(record), info };
}

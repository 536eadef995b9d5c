import type { Context } from '../base/context.js';
import type { v1 } from './api.js';
import { requiredText } from './checks.js';
import { verboseInfo } from './info.js';
import type { CriParts } from './parts.js';
import { encodeSandboxStatus } from './sandbox-codec.js';

/** @throws NotFound, which tells the kubelet that the pod is gone */
export async function podSandboxStatus(
  _ctx: Context,
  request: v1.PodSandboxStatusRequest,
  { pods }: CriParts,
): Promise<v1.PodSandboxStatusResponse.$Properties> {
  const record = pods.sandbox(requiredText(request.podSandboxId, 'pod_sandbox_id'));
  const info = await verboseInfo(request.verbose, async () => ({
    phase: record.phase,
    failure: record.failure,
    cgroupParent: record.config.cgroupParent,
    logDirectory: record.config.logDirectory,
    timings: record.timings,
    ...(await pods.describeSandbox(record.id)),
  }));
  return { status: encodeSandboxStatus(record), info };
}

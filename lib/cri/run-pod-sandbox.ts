import type { Context } from '../base/context.js';
import { runtimeHandlers } from '../model/runtime.js';
import type { v1 } from './api.js';
import { invalid, shown } from './checks.js';
import type { CriParts } from './parts.js';
import { decodeSandboxConfig } from './sandbox-config.js';

/** Cleans up after itself: when it fails, the client learns of no id that it could remove. */
export async function runPodSandbox(
  ctx: Context,
  request: v1.RunPodSandboxRequest,
  { pods }: CriParts,
): Promise<v1.RunPodSandboxResponse.$Properties> {
  const config = decodeSandboxConfig(request.config);
  if (!runtimeHandlers.includes(request.runtimeHandler))
    throw invalid(
      `the runtime handler '${shown(request.runtimeHandler)}' is not known; ` +
        `this runtime serves ${runtimeHandlers.map((name) => `'${name}'`).join(' and ')}`,
    );
  const record = await pods.runSandbox(ctx, config, request.runtimeHandler);
  return { podSandboxId: record.id };
}

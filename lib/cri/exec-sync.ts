import type { Context } from '../base/context.js';
import { MIB } from '../base/units.js';
import type { v1 } from './api.js';
import { integer, invalid } from './checks.js';
import { containerId } from './ids.js';
import type { CriParts } from './parts.js';
import { graceSecondsMax } from './stop-container.js';

/** Both streams together must fit one message of 16 MiB. */
const outputBytesMax = 8 * MIB - 64 * 1024;

/**
 * A command that fails is an answer with its exit code. @throws DeadlineExceeded when the command's own
 * time is over: the kubelet counts that as a failed probe, and any other error as an unknown one
 */
export async function execSync(
  ctx: Context,
  request: v1.ExecSyncRequest,
  { pods }: CriParts,
): Promise<v1.ExecSyncResponse.$Properties> {
  const id = containerId(pods, request.containerId);
  if (request.cmd.length === 0) throw invalid('cmd is empty: name the command to run');
  if (request.cmd.some((word) => word.includes('\0'))) throw invalid('cmd contains a NUL byte');
  const timeoutSeconds = Math.min(integer(request.timeout, 'timeout', 0), graceSecondsMax);
  const { stdout, stderr, exitCode } = await pods.execSync(ctx, id, request.cmd, timeoutSeconds);
  return {
    stdout: stdout.subarray(0, outputBytesMax),
    stderr: stderr.subarray(0, outputBytesMax),
    exitCode,
  };
}

import type { Context } from '../base/context.js';
import { isId } from '../base/ids.js';
import type { admin } from './admin-progress.js';
import { invalid, requiredText, shown } from './checks.js';
import type { Machines, Pods } from './ports.js';

/** @throws NotFound */
export async function adminInspectVm(
  ctx: Context,
  request: admin.InspectVmRequest,
  machines: Machines,
  pods: Pods,
): Promise<admin.InspectVmResponse.$Properties> {
  const id = requiredText(request.id, 'id');
  if (!isId(id)) throw invalid(`'${shown(id)}' is no VM’s id: 64 hex digits`);
  const vm = await machines.describeVm(ctx, id);
  return { json: JSON.stringify({ id, ...(await podOf(pods, vm.record.sandboxId)), ...vm }) };
}

/** The pod's part of the story: names, phase timings, network, the guest's own account. */
async function podOf(pods: Pods, sandboxId: string): Promise<Readonly<Record<string, unknown>>> {
  // A pod that is being made, or removed, has a machine and is not listed.
  const sandbox = pods.sandboxes().find((one) => one.id === sandboxId);
  if (sandbox === undefined) return {};
  const { vm: _, ...facts } = await pods.describeSandbox(sandboxId);
  return { pod: { id: sandboxId, ...sandbox.config.metadata, ...facts } };
}

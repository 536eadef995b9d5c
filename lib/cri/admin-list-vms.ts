import type { Context } from '../base/context.js';
import { encodeVm } from './admin-machine-codec.js';
import type { admin } from './admin-progress.js';
import type { Machines, Pods } from './ports.js';

export async function adminListVms(
  ctx: Context,
  machines: Machines,
  pods: Pods,
): Promise<admin.ListVmsResponse.$Properties> {
  const all = await machines.vms(ctx);
  const names = new Map(pods.sandboxes().map(({ id, config }) => [id, config.metadata]));
  return { vms: all.map((facts) => encodeVm(facts, names.get(facts.record.sandboxId))) };
}

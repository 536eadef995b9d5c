import type { Context } from '../base/context.js';
import { abortable } from '../base/context.js';
import { toRemoving } from '../model/sandbox-state.js';
import type { SandboxEntry } from './registry.js';
import { beginRemove } from './remove-container.js';
import type { PodRoom } from './room.js';
import { beginStop, untilRecovered } from './stop-sandbox.js';

/** Stops it when it runs, removes its containers and its record. Succeeds for an unknown id. */
export async function removeSandbox(room: PodRoom, ctx: Context, id: string): Promise<void> {
  const entry = room.registry.findSandbox(id);
  if (entry === undefined) return;
  await abortable(ctx, untilRecovered(room, entry));
  await abortable(ctx, beginRemoveSandbox(room, entry));
}

/** The same for whoever has the entry; concurrent calls share the work. */
export async function beginRemoveSandbox(room: PodRoom, entry: SandboxEntry): Promise<void> {
  entry.removing ??= remove(room, entry).finally(() => {
    entry.removing = undefined;
  });
  await entry.removing;
}

async function remove(room: PodRoom, entry: SandboxEntry): Promise<void> {
  await beginStop(room, entry);
  await room.ledger.noteSandbox(entry, toRemoving(entry.record));
  await Promise.all([...entry.containers].map((container) => beginRemove(room, container)));
  await room.ledger.deleteSandbox(entry);
  room.registry.removeSandbox(entry);
  room.events.sandbox('deleted', entry.record);
}

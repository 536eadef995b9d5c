import type { Context } from '../base/context.js';
import { abortable } from '../base/context.js';
import { toRemoving } from '../model/container-state.js';
import { cleanContainer, isNoAnswer } from './clean-container.js';
import type { LivePod } from './live-pod.js';
import type { ContainerEntry } from './registry.js';
import type { PodRoom } from './room.js';
import { attempt } from './steps.js';
import { endContainer } from './stop-container.js';
import { failSandbox } from './stop-sandbox.js';

/** Kills it when it runs and removes everything of it. Succeeds for an unknown id; goes on when the caller leaves. */
export async function removeContainer(room: PodRoom, ctx: Context, id: string): Promise<void> {
  const entry = room.registry.findContainer(id);
  if (entry === undefined) return;
  await abortable(ctx, entry.sandbox.recovered.opened);
  await abortable(ctx, beginRemove(room, entry));
}

/** The same for whoever has the entry; concurrent calls share the work. */
export async function beginRemove(room: PodRoom, entry: ContainerEntry): Promise<void> {
  entry.removing ??= remove(room, entry).finally(() => {
    entry.removing = undefined;
  });
  await entry.removing;
}

async function remove(room: PodRoom, entry: ContainerEntry): Promise<void> {
  await endContainer(room, entry, 0);
  if (entry.record.phase !== 'creating') await room.ledger.noteContainer(entry, toRemoving(entry.record));
  try {
    await cleanContainer(room, entry);
  } catch (error) {
    const { live } = entry.sandbox;
    if (!isNoAnswer(error) || live === undefined) throw error;
    // A guest that writes back much when it unmounts goes on with it, and is waited for by who asks again.
    if (!live.isVmGone && (await answers(room, live))) throw error;
    // As in StopContainer: a guest that does not answer is hung, and its pod is ended.
    failSandbox(
      room,
      entry.sandbox,
      `the guest did not answer when container ${entry.record.id} was removed; its virtual machine was killed`,
    );
    await entry.sandbox.stopping?.catch(() => undefined);
    await cleanContainer(room, entry);
  }
  room.events.container('deleted', entry.record);
}

async function answers(room: PodRoom, live: LivePod): Promise<boolean> {
  return attempt(
    room.settings.deadlines.killMs,
    'asking whether the guest answers',
    async (ctx) => (await live.guest(ctx)).listContainers(ctx),
    () => undefined,
  );
}

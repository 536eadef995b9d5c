/** The logs of pods that `run` made. The kubelet removes those of its pods; these are ours. */
import { lstat, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';

import { isErrno } from '../../lib/base/errors.js';
import { infoOf } from './messages.js';
import type { Session } from './session.js';

export const namespace = 'herkosctl';
/** Tells pods of `run` from those that a kubelet has in a namespace of that name. */
export const madeByRun: Readonly<Record<string, string>> = { 'herkos.io/made-by': 'herkosctl-run' };

export function logDirectory(root: string, name: string, uid: string): string {
  return join(root, `${namespace}_${name}_${uid}`);
}

/** Where a pod of `run` has its logs; undefined when somebody else made it, or the directory has another's name. */
export async function ownLogDirectory(session: Session, podSandboxId: string): Promise<string | undefined> {
  const { status, info } = await session.quick(session.rpc.podSandboxStatus, { podSandboxId, verbose: true });
  const { metadata, annotations } = status ?? {};
  const isOurs = Object.entries(madeByRun).every(([key, value]) => annotations?.[key] === value);
  const directory = infoOf(info)['logDirectory'];
  if (!isOurs || metadata?.namespace !== namespace || typeof directory !== 'string') return undefined;
  const expected = logDirectory('/', metadata.name ?? '', metadata.uid ?? '');
  return basename(directory) === basename(expected) ? directory : undefined;
}

/** Only a directory: a link there leads to what is somebody else's. */
export async function removeLogs(directory: string): Promise<void> {
  try {
    if (!(await lstat(directory)).isDirectory()) return;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return;
    throw error;
  }
  await rm(directory, { recursive: true, force: true });
}

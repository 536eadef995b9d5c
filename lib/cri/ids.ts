/** Ids in requests: never empty (an empty one would be the prefix of any), and unknown ones forgiven where CRI says so. */
import { classOf } from '../base/errors.js';
import { requiredText } from './checks.js';
import type { Pods } from './ports.js';

/** The full id of a pod; a name that matches none is returned as it is, for calls that succeed then. */
export function sandboxIdOrGone(pods: Pods, id: string): string {
  const text = requiredText(id, 'pod_sandbox_id');
  return unlessNotFound(() => pods.sandbox(text).id) ?? text;
}

/** The full id of a container; a name that matches none is returned as it is. */
export function containerIdOrGone(pods: Pods, id: string): string {
  const text = requiredText(id, 'container_id');
  return unlessNotFound(() => pods.container(text).id) ?? text;
}

/** @throws NotFound */
export function sandboxId(pods: Pods, id: string): string {
  return pods.sandbox(requiredText(id, 'pod_sandbox_id')).id;
}

/** @throws NotFound */
export function containerId(pods: Pods, id: string): string {
  return pods.container(requiredText(id, 'container_id')).id;
}

function unlessNotFound<T>(find: () => T): T | undefined {
  try {
    return find();
  } catch (error) {
    if (classOf(error) === 'NotFound') return undefined;
    throw error;
  }
}

/** Filters of the list RPCs: what is set must all match; an id may be a prefix. */
import type { ContainerRecord } from '../model/container.js';
import type { SandboxRecord } from '../model/sandbox.js';
import type { v1 } from './api.js';
import { containerState } from './container-codec.js';
import { sandboxState } from './sandbox-codec.js';

export function filterSandboxes(
  records: readonly SandboxRecord[],
  filter: v1.PodSandboxFilter.$Properties | null | undefined,
): readonly SandboxRecord[] {
  if (!filter) return records;
  const id = filter.id ?? '';
  const state = filter.state ? (filter.state.state ?? 0) : undefined;
  const selector = Object.entries(filter.labelSelector ?? {});
  return records.filter(
    (record) =>
      record.id.startsWith(id) &&
      (state === undefined || sandboxState(record) === state) &&
      hasLabels(record.config.labels, selector),
  );
}

export function filterContainers(
  records: readonly ContainerRecord[],
  filter: v1.ContainerFilter.$Properties | null | undefined,
): readonly ContainerRecord[] {
  if (!filter) return records;
  const id = filter.id ?? '';
  const sandboxId = filter.podSandboxId ?? '';
  const state = filter.state ? (filter.state.state ?? 0) : undefined;
  const selector = Object.entries(filter.labelSelector ?? {});
  return records.filter(
    (record) =>
      record.id.startsWith(id) &&
      record.sandboxId.startsWith(sandboxId) &&
      (state === undefined || containerState(record) === state) &&
      hasLabels(record.config.labels, selector),
  );
}

function hasLabels(
  labels: Readonly<Record<string, string>>,
  selector: readonly (readonly [string, string])[],
): boolean {
  return selector.every(([key, value]) => Object.hasOwn(labels, key) && labels[key] === value);
}

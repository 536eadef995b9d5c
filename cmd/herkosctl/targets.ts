/** Finds what a person means: an id, the beginning of one, or a name. */
import { v1 } from '../../lib/cri/api.js';
import { beginsId, theOnly } from './lookup.js';
import { stateName } from './messages.js';
import { shownId } from './output.js';
import type { Session } from './session.js';

export interface Pod {
  readonly kind: 'pod';
  readonly id: string;
  readonly name: string;
  readonly ready: boolean;
  /** For people; so is a container's. */
  readonly state: string;
}

export interface Container {
  readonly kind: 'container';
  readonly id: string;
  readonly name: string;
  readonly podId: string;
  readonly running: boolean;
  readonly state: string;
}

export type Target = Pod | Container;

/** Everything on the node, asked for once. */
export async function allTargets(session: Session): Promise<{ pods: Pod[]; containers: Container[] }> {
  const [{ items }, { containers }] = await Promise.all([
    session.quick(session.rpc.listPodSandbox, {}),
    session.quick(session.rpc.listContainers, {}),
  ]);
  return {
    pods: items.map((item) => ({
      kind: 'pod',
      id: item.id ?? '',
      name: item.metadata?.name ?? '',
      ready: item.state === v1.PodSandboxState.SANDBOX_READY,
      state: item.state === v1.PodSandboxState.SANDBOX_READY ? 'ready' : 'not ready',
    })),
    containers: containers.map((item) => ({
      kind: 'container',
      id: item.id ?? '',
      name: item.metadata?.name ?? '',
      podId: item.podSandboxId ?? '',
      running: item.state === v1.ContainerState.CONTAINER_RUNNING,
      state: stateName(item.state),
    })),
  };
}

/**
 * A pod or a container. Names come again: of several that fit, the only one that runs is meant, except with
 * `strict`, for what cannot be undone. @throws NotFound; InvalidArgument when several fit
 */
export async function findTarget(session: Session, text: string, strict?: 'strict'): Promise<Target> {
  const { pods, containers } = await allTargets(session);
  const found: Target[] = matches([...pods, ...containers], text);
  return single(text, strict === undefined ? preferLive(found) : found, 'pod or container');
}

/** A container, or the only one (else the only running one) of a pod. A name of both is the pod's. */
export async function findContainer(session: Session, text: string, name?: string): Promise<Container> {
  const { pods, containers } = await allTargets(session);
  const target =
    name === undefined
      ? single(text, preferLive(podsFirst([...pods, ...containers], text)), 'pod or container')
      : single(text, preferLive(matches(pods, text)), 'pod');
  if (target.kind === 'container') return target;
  const inside = containers.filter(
    ({ podId, name: own }) => podId === target.id && (name === undefined || own === name),
  );
  return single(name ?? text, preferLive(inside), 'container');
}

function podsFirst(all: readonly Target[], text: string): readonly Target[] {
  const found = matches(all, text);
  const pods = found.filter(({ kind, name }) => kind === 'pod' && name === text);
  return pods.length > 0 ? pods : found;
}

function matches<T extends Target>(all: readonly T[], text: string): T[] {
  const exact = all.filter(({ id, name }) => id === text || name === text);
  return exact.length > 0 ? exact : all.filter(({ id }) => beginsId(text, id));
}

function preferLive<T extends Target>(found: readonly T[]): readonly T[] {
  const live = found.filter((target) => (target.kind === 'pod' ? target.ready : target.running));
  return live.length === 1 ? live : found;
}

function single<T extends Target>(text: string, found: readonly T[], what: string): T {
  return theOnly(
    text,
    found,
    { what, hasNames: true, list: 'ps -a' },
    ({ kind, name, id, state }) => `${kind} ${name} (${shownId(id)}, ${state})`,
  );
}

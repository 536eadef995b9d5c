/** Finds what a person means: an id, the beginning of one, or a name. */
import { HerkosError } from '../../lib/base/errors.js';
import { v1 } from '../../lib/cri/api.js';
import type { Session } from './session.js';

const prefixLengthMin = 3;

export interface Pod {
  readonly kind: 'pod';
  readonly id: string;
  readonly name: string;
  readonly ready: boolean;
}

export interface Container {
  readonly kind: 'container';
  readonly id: string;
  readonly name: string;
  readonly podId: string;
  readonly running: boolean;
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
    })),
    containers: containers.map((item) => ({
      kind: 'container',
      id: item.id ?? '',
      name: item.metadata?.name ?? '',
      podId: item.podSandboxId ?? '',
      running: item.state === v1.ContainerState.CONTAINER_RUNNING,
    })),
  };
}

/** A pod or a container. @throws NotFound; InvalidArgument when several fit */
export async function findTarget(session: Session, text: string): Promise<Target> {
  const { pods, containers } = await allTargets(session);
  return single(text, matches([...pods, ...containers], text), 'pod or container');
}

/** A container, or the only one (else the only running one) of a pod. */
export async function findContainer(session: Session, text: string, name?: string): Promise<Container> {
  const { pods, containers } = await allTargets(session);
  if (name === undefined) {
    const direct = matches(containers, text).filter(
      ({ id, name: own }) => id.startsWith(text) || own === text,
    );
    const pod = matches(pods, text);
    if (direct.length > 0 && pod.length === 0) return single(text, direct, 'container');
  }
  const pod = single(text, matches(pods, text), name === undefined ? 'pod or container' : 'pod');
  const inside = containers.filter(
    ({ podId, name: own }) => podId === pod.id && (name === undefined || own === name),
  );
  const running = inside.filter((container) => container.running);
  return single(name ?? text, inside.length > 1 && running.length === 1 ? running : inside, 'container');
}

function matches<T extends Target>(all: readonly T[], text: string): T[] {
  const exact = all.filter(({ id, name }) => id === text || name === text);
  if (exact.length > 0 || text.length < prefixLengthMin) return exact;
  return all.filter(({ id }) => id.startsWith(text));
}

function single<T extends Target>(text: string, found: readonly T[], what: string): T {
  const [first, second] = found;
  if (first === undefined)
    throw new HerkosError('NotFound', `there is no ${what} '${text}'; 'herkosctl ps -a' shows what there is`);
  if (second === undefined) return first;
  const names = found.map(({ kind, name, id }) => `${kind} ${name} (${id.slice(0, 13)})`).join(', ');
  throw new HerkosError('InvalidArgument', `'${text}' fits several: ${names}; write more of the id`);
}

import { v1 } from '../../lib/cri/api.js';
import { firstText, stateName } from './messages.js';
import { shownAge, shownId } from './output.js';
import type { Session } from './session.js';

interface Row {
  readonly podId: string;
  readonly pod: string;
  readonly namespace: string;
  readonly podState: string;
  readonly ip: string;
  readonly containerId: string;
  readonly container: string;
  readonly image: string;
  readonly state: string;
  readonly createdAt: string;
}

/** One row a container; a pod without containers has a row of its own. */
export async function psCommand(session: Session, options: { readonly all?: boolean }): Promise<void> {
  const [{ items }, { containers }] = await Promise.all([
    session.quick(session.rpc.listPodSandbox, {}),
    session.quick(session.rpc.listContainers, {}),
  ]);
  const ready = items.filter(({ state }) => state === v1.PodSandboxState.SANDBOX_READY);
  const pods = options.all === true ? items : ready;
  const rows = await Promise.all(
    pods.map(async (pod) => {
      const mine = containers.filter(({ podSandboxId }) => podSandboxId === pod.id);
      const shown = options.all === true ? mine : mine.filter(isAlive);
      return rowsOf(pod, await addressOf(session, pod.id ?? ''), shown);
    }),
  );
  session.output.result(rows.flat(), () => {
    session.output.table(
      ['POD', 'POD ID', 'POD STATE', 'IP', 'CONTAINER', 'CONTAINER ID', 'IMAGE', 'STATE', 'CREATED'],
      rows
        .flat()
        .map((row) => [
          row.pod,
          shownId(row.podId),
          row.podState,
          row.ip || '-',
          row.container || '-',
          shownId(row.containerId) || '-',
          row.image || '-',
          row.state || '-',
          shownAge(row.createdAt),
        ]),
    );
  });
}

function isAlive({ state }: v1.Container.$Properties): boolean {
  return state !== v1.ContainerState.CONTAINER_EXITED;
}

/** A pod may go between two questions; then it simply has no address. */
async function addressOf(session: Session, podSandboxId: string): Promise<string> {
  try {
    const { status } = await session.quick(session.rpc.podSandboxStatus, { podSandboxId });
    return status?.network?.ip ?? '';
  } catch {
    return '';
  }
}

function rowsOf(
  pod: v1.PodSandbox.$Properties,
  ip: string,
  containers: readonly v1.Container.$Properties[],
): Row[] {
  const base = {
    podId: pod.id ?? '',
    pod: pod.metadata?.name ?? '',
    namespace: pod.metadata?.namespace ?? '',
    podState: pod.state === v1.PodSandboxState.SANDBOX_READY ? 'ready' : 'not ready',
    ip,
  };
  const none = {
    containerId: '',
    container: '',
    image: '',
    state: '',
    createdAt: String(pod.createdAt ?? 0),
  };
  if (containers.length === 0) return [{ ...base, ...none }];
  return containers.map((container) => ({
    ...base,
    containerId: container.id ?? '',
    container: container.metadata?.name ?? '',
    image: firstText(container.image?.userSpecifiedImage, container.image?.image),
    state: stateName(container.state),
    createdAt: String(container.createdAt ?? 0),
  }));
}

/** The suite of the pod room through CRI: daemon, guest, network and image are real. */
import { expect } from 'chai';
import Long from 'long';
import { randomBytes } from 'node:crypto';

import { errorClasses } from '../../../lib/base/errors.js';
import type { ErrorClass } from '../../../lib/base/errors.js';
import type { ContainerView, PodSubject } from '../../suites/pod-lifecycle.js';
import { podLifecycleSuite } from '../../suites/pod-lifecycle.js';
import { NodeFixture, containerStates } from '../../tools/node-fixture.js';

const phases: Readonly<Record<number, ContainerView['phase']>> = {
  [containerStates.CONTAINER_CREATED]: 'created',
  [containerStates.CONTAINER_RUNNING]: 'running',
  [containerStates.CONTAINER_EXITED]: 'exited',
};

describe('pods of a whole node', () => {
  let node: NodeFixture;

  before(async () => {
    node = await NodeFixture.start();
  });

  after(async () => {
    await node.stop();
  });

  podLifecycleSuite('on real VMs', () => Promise.resolve(subjectOf(node)));
});

function subjectOf(node: NodeFixture): PodSubject {
  const { client } = node.daemon;
  const suffix = randomBytes(3).toString('hex');
  const logDirectory = node.logDirectory(suffix);
  let count = 0;
  const newName = (): string => `${suffix}-${String((count += 1))}`;
  const empty = (response: Promise<unknown>): Promise<void> => response.then(() => undefined);
  return {
    logDirectory,
    classOf: classOfStatus,
    run: () => node.runSandbox(newName(), logDirectory),
    create: (sandbox, script, logPath) =>
      node.createContainer(sandbox, newName(), ['/bin/sh', '-c', script], { logPath }),
    start: (containerId) => empty(client.runtime('startContainer', { containerId })),
    stop: (containerId, seconds) =>
      empty(client.runtime('stopContainer', { containerId, timeout: Long.fromNumber(seconds) })),
    remove: (containerId) => empty(client.runtime('removeContainer', { containerId })),
    exec: (containerId, cmd) =>
      empty(client.runtime('execSync', { containerId, cmd: [...cmd], timeout: Long.ONE })),
    stopSandbox: (podSandboxId) => empty(client.runtime('stopPodSandbox', { podSandboxId })),
    removeSandbox: (podSandboxId) => empty(client.runtime('removePodSandbox', { podSandboxId })),
    isReady: (id) => node.isReady(id),
    container: async (id) => {
      const { state, exitCode, reason } = await node.containerStatus(id);
      const phase = phases[state ?? containerStates.CONTAINER_UNKNOWN];
      if (phase === undefined) throw new Error(`the container is in state ${String(state)}`);
      return { phase, exitCode: exitCode ?? 0, reason: reason ?? '' };
    },
    sandboxes: async () => (await client.runtime('listPodSandbox', {})).items.map(({ id }) => id ?? ''),
    containers: async () => (await client.runtime('listContainers', {})).containers.map(({ id }) => id ?? ''),
    close: async () => {
      await node.daemon.removeAllPods();
      expect(await node.daemon.leftovers()).to.deep.equal([]);
    },
  };
}

/** A class is a gRPC status code, and the other way round. */
function classOfStatus(error: unknown): ErrorClass {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  const found = Object.entries(errorClasses).find(([, one]) => one === code);
  if (found === undefined) throw error;
  return found[0] as ErrorClass;
}

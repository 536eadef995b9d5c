import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { status } from '@grpc/grpc-js';
import { expect } from 'chai';

import { eventually } from '../../tools/eventually.js';
import type { HerkosdProcess } from '../../tools/herkosd-process.js';
import { NodeFixture, containerStates, sandboxStates } from '../../tools/node-fixture.js';

const crashingDaemon = new URL('../../tools/crashing-herkosd.js', import.meta.url).pathname;
/** More writes than any verb makes; reaching it means that the loop does not see its end. */
const writesMax = 30;
const callTimeoutMs = 60_000;

/**
 * R1 and R2: the daemon dies by SIGKILL between any two persisted steps of a verb, and is started again.
 * Then every pod is whole or gone, nothing has no owner, and the verb can be called again.
 */
describe('a daemon killed between any two persisted steps', () => {
  let node: NodeFixture;
  let daemon: HerkosdProcess;

  before(async () => {
    node = await NodeFixture.start({ program: crashingDaemon });
    ({ daemon } = node);
  });

  after(async () => node.stop());

  afterEach(async () => {
    await daemon.removeAllPods();
    expect(await daemon.leftovers(), 'after all pods were removed').to.deep.equal([]);
  });

  /** Calls `verb` with a crash after its n-th write; true when it came to its end before that. */
  async function crashAt(write: number, verb: () => Promise<unknown>): Promise<boolean> {
    const crashFile = join(daemon.directory, 'crash');
    await daemon.crash();
    await daemon.restart({ HERKOS_CRASH_FILE: crashFile });
    await settled();
    await writeFile(crashFile, String(write));
    try {
      return await raceWithCrash(verb);
    } finally {
      await rm(crashFile, { force: true });
    }
  }

  async function raceWithCrash(verb: () => Promise<unknown>): Promise<boolean> {
    const crashed = daemon.ended().then(() => 'crashed' as const);
    const call = verb().then(
      () => 'done' as const,
      async (error: unknown) => {
        // The call breaks with the daemon, sometimes before its end is seen; any other failure is one.
        if (!(error instanceof Error && 'code' in error && error.code === status.UNAVAILABLE)) throw error;
        return crashed;
      },
    );
    const outcome = await Promise.race([call, crashed]);
    call.catch(() => undefined);
    if (outcome === 'done' && daemon.pid !== undefined) return true;
    await daemon.restart();
    await settled();
    return false;
  }

  /** Recovery is over when what is on the machine is what the lists tell. */
  async function settled(): Promise<void> {
    let want: string[] = [];
    let have: string[] = [];
    const until = Date.now() + callTimeoutMs;
    await eventually(async () => {
      if (Date.now() > until)
        throw new Error(
          `listed: ${want.join(', ')}\nfound: ${have.join(', ')}\n${(await daemon.leftovers()).join('\n')}\n${await daemon.log()}`,
        );
      want = await listed();
      have = await found();
      return JSON.stringify(want) === JSON.stringify(have);
    });
  }

  async function listed(): Promise<string[]> {
    const { items } = await daemon.client.runtime('listPodSandbox', {});
    const { containers } = await daemon.client.runtime('listContainers', {});
    const ready = items
      .filter(({ state }) => state === sandboxStates.SANDBOX_READY)
      .map(({ id }) => id ?? '');
    return [
      ...ready.flatMap((id) => [
        `netns ${id}`,
        `process ${id.slice(0, 12)}`,
        `run/vm ${id}`,
        `state/vms ${id}`,
      ]),
      ...items.map(({ id }) => `state/sandboxes ${id ?? ''}`),
      ...containers.flatMap(({ id }) => [`state/containers ${id ?? ''}`, `state/disks ${id ?? ''}`]),
    ].sort();
  }

  async function found(): Promise<string[]> {
    const lines = await daemon.leftovers();
    return lines
      .map(
        (line) =>
          /^(netns) \w+-(\w+)$/.exec(line) ??
          /^(process) \d+ herkos-\w+-(\w{12})/.exec(line) ??
          /^(run\/vm|state\/vms|state\/sandboxes|state\/containers|state\/disks)\/(\w{64})/.exec(line),
      )
      .flatMap((match) => (match === null ? [] : [`${match[1] ?? ''} ${match[2] ?? ''}`]))
      .sort();
  }

  async function expectRuns(containerId: string): Promise<void> {
    expect(await node.exec(containerId, 'echo', 'alive')).to.equal('alive\n');
  }

  it('in RunPodSandbox', async function () {
    this.timeout(600_000);
    for (let write = 1; write < writesMax; write += 1) {
      if (await crashAt(write, async () => node.runSandbox(`run-${String(write)}`))) return;
      // Whether or not the client ever learnt of it, a pod that is listed is whole.
      for (const { id } of (await daemon.client.runtime('listPodSandbox', {})).items) {
        const containerId = await node.createContainer(id ?? '', 'c');
        await daemon.client.runtime('startContainer', { containerId });
        await expectRuns(containerId);
      }
      await daemon.removeAllPods();
    }
    expect.fail('RunPodSandbox never came to its end');
  });

  it('in CreateContainer and StartContainer', async function () {
    this.timeout(600_000);
    const pod = await node.runSandbox('containers');
    const until = async (verb: (write: number) => Promise<boolean>): Promise<void> => {
      for (let write = 1; write < writesMax; write += 1) if (await verb(write)) return;
      expect.fail('the verb never came to its end');
    };
    await until(async (write) => {
      const done = await crashAt(write, async () => node.createContainer(pod, `create-${String(write)}`));
      for (const { id, state } of (await daemon.client.runtime('listContainers', {})).containers) {
        expect(state).to.equal(containerStates.CONTAINER_CREATED);
        await daemon.client.runtime('startContainer', { containerId: id ?? '' });
        await expectRuns(id ?? '');
        await daemon.client.runtime('removeContainer', { containerId: id ?? '' });
      }
      return done;
    });
    await until(async (write) => {
      const containerId = await node.createContainer(pod, `start-${String(write)}`);
      const done = await crashAt(write, async () => daemon.client.runtime('startContainer', { containerId }));
      const { status: after } = await daemon.client.runtime('containerStatus', { containerId });
      // It runs, or it never ran and may be started again.
      if (after?.state !== containerStates.CONTAINER_RUNNING) {
        expect(after?.state).to.equal(containerStates.CONTAINER_CREATED);
        await daemon.client.runtime('startContainer', { containerId });
      }
      await expectRuns(containerId);
      await daemon.client.runtime('removeContainer', { containerId });
      return done;
    });
  });

  for (const verb of ['stopPodSandbox', 'removePodSandbox'] as const) {
    it(`in ${verb}`, async function () {
      this.timeout(600_000);
      for (let write = 1; write < writesMax; write += 1) {
        const podSandboxId = await node.runSandbox(`end-${String(write)}`);
        const containerId = await node.createContainer(podSandboxId, 'c');
        await daemon.client.runtime('startContainer', { containerId });
        const done = await crashAt(write, async () => daemon.client.runtime(verb, { podSandboxId }));
        // The client does not know how far it came, and asks again.
        await daemon.client.runtime(verb, { podSandboxId });
        const { items } = await daemon.client.runtime('listPodSandbox', {});
        expect(items.map(({ state }) => state)).to.deep.equal(
          verb === 'stopPodSandbox' ? [sandboxStates.SANDBOX_NOTREADY] : [],
        );
        expect(
          (await daemon.leftovers()).filter((line) => /^(process|netns|cgroup|lease)/.test(line)),
        ).to.deep.equal([]);
        await daemon.removeAllPods();
        if (done) return;
      }
      expect.fail(`${verb} never came to its end`);
    });
  }
});

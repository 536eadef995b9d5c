/** What a container costs in a pod that runs: from CreateContainer to its first log line, and one ExecSync. */
import { mkdir, readFile, rm } from 'node:fs/promises';
import { watch } from 'node:fs';
import { dirname, join } from 'node:path';

import { NodeFixture } from '../tools/node-fixture.js';
import { containerConfig, sandboxConfig } from '../tools/pod-config.js';
import type { CriClient } from '../tools/cri-client.js';
import type { Bench, BenchTools, Row } from './bench.js';
import { row, shownMs, timed } from './bench.js';
import { ContainerdNode } from './containerd-node.js';

const starts = 9;
const quickStarts = 3;
const execs = 30;
const quickExecs = 5;
const word = 'first-line';

/** One runtime with a pod that waits for containers. */
interface Side {
  readonly client: CriClient;
  readonly podSandboxId: string;
  readonly sandbox: ReturnType<typeof sandboxConfig>;
  readonly image: string;
}

export const warmPod: Bench = {
  names: ['container-start', 'exec-sync'],
  about:
    'create + start of a container to its first log line, and ExecSync, in a pod that runs; against runc',
  minutes: 1,
  async run(tools) {
    const fixture = await NodeFixture.start({ logLevel: 'info' });
    try {
      const own = await side(fixture.daemon.client, fixture.image, fixture.daemon.directory);
      // The network's configuration is there since our pod is.
      const containerd = await ContainerdNode.start(fixture.daemon);
      try {
        await containerd.client.image('pullImage', { image: { image: fixture.image } });
        const peer = await side(containerd.client, fixture.image, containerd.directory);
        return await measure(tools, own, peer);
      } finally {
        await containerd.stop();
      }
    } finally {
      await fixture.stop();
    }
  },
};

async function side(client: CriClient, image: string, directory: string): Promise<Side> {
  const logDirectory = join(directory, 'logs', 'warm');
  await mkdir(logDirectory, { recursive: true });
  const sandbox = sandboxConfig({ name: 'warm', logDirectory });
  const { podSandboxId } = await client.runtime('runPodSandbox', { config: sandbox });
  return { client, podSandboxId, sandbox, image };
}

async function measure({ say, quick }: BenchTools, own: Side, peer: Side): Promise<Row[]> {
  const started = { own: [] as number[], peer: [] as number[] };
  // The first container brings the image into the guest; the pod is warm after it.
  await startContainer(own, 'warm-up');
  await startContainer(peer, 'warm-up');
  for (let round = 0; round < (quick ? quickStarts : starts); round += 1) {
    started.peer.push(await startContainer(peer, `c-${String(round)}`));
    started.own.push(await startContainer(own, `c-${String(round)}`));
  }
  say(`create + start: ${shownMs(started.own)}; containerd ${shownMs(started.peer)}`);
  const execMs = await execRounds(own, peer, quick ? quickExecs : execs);
  return [
    row({
      name: 'container-start',
      unit: 'ms',
      samples: started.own,
      goal: '-',
      peer: { name: 'containerd + runc', samples: started.peer },
    }),
    row({
      name: 'exec-sync',
      unit: 'ms',
      samples: execMs.own,
      goal: '-',
      peer: { name: 'containerd + runc', samples: execMs.peer },
    }),
  ];
}

/** Milliseconds from the call of CreateContainer to the first line in the container's log; then it is removed. */
async function startContainer(at: Side, name: string): Promise<number> {
  const { client, podSandboxId, sandbox } = at;
  const command = ['sh', '-c', `echo ${word}; exec sleep 3600`];
  const log = join(sandbox.logDirectory ?? '', `${name}.log`);
  const line = lineIn(log);
  let containerId = '';
  const ms = await timed(async () => {
    const config = containerConfig(name, at.image, command);
    ({ containerId } = await client.runtime('createContainer', {
      podSandboxId,
      config,
      sandboxConfig: sandbox,
    }));
    await client.runtime('startContainer', { containerId });
    await line;
  });
  await client.runtime('removeContainer', { containerId });
  await rm(log, { force: true });
  return ms;
}

/** Resolves when the file holds the word that containers say first. */
async function lineIn(path: string): Promise<void> {
  const watcher = watch(dirname(path));
  try {
    await new Promise<void>((resolve, reject) => {
      watcher.on('error', reject);
      watcher.on('change', () => {
        void readFile(path, 'utf8')
          .catch(() => '')
          .then((text) => {
            if (text.includes(word)) resolve();
          });
      });
    });
  } finally {
    watcher.close();
  }
}

async function execRounds(own: Side, peer: Side, count: number): Promise<{ own: number[]; peer: number[] }> {
  const ms = { own: [] as number[], peer: [] as number[] };
  const [ownId, peerId] = [await sleeping(own), await sleeping(peer)];
  await exec(own, ownId);
  await exec(peer, peerId);
  for (let round = 0; round < count; round += 1) {
    ms.peer.push(await timed(async () => exec(peer, peerId)));
    ms.own.push(await timed(async () => exec(own, ownId)));
  }
  return ms;
}

async function sleeping({ client, podSandboxId, sandbox, image }: Side): Promise<string> {
  const config = containerConfig('exec', image, ['sleep', '3600']);
  const { containerId } = await client.runtime('createContainer', {
    podSandboxId,
    config,
    sandboxConfig: sandbox,
  });
  await client.runtime('startContainer', { containerId });
  return containerId;
}

async function exec({ client }: Side, containerId: string): Promise<void> {
  const { exitCode } = await client.runtime('execSync', { containerId, cmd: ['true'] });
  if (exitCode !== 0) throw new Error(`an exec of 'true' ended with ${String(exitCode)}`);
}

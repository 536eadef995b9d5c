import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { Client, Metadata, credentials } from '@grpc/grpc-js';

import { runtime } from '#gen/cri/v1/api.js';
import { newId } from '../../lib/base/ids.js';
import type { ContainerRecord } from '../../lib/model/container.js';
import type { SandboxRecord } from '../../lib/model/sandbox.js';
import { nowUnixNano } from '../../lib/model/time.js';
import { containerConfig, sandboxConfig } from '../fakes/pod-configs.js';
import { HerkosdProcess } from '../tools/herkosd-process.js';
import { pushBigImage } from './big-image.js';
import { RegistryProcess } from '../tools/registry-process.js';
import type { Bench } from './bench.js';
import { quantile, row, timed } from './bench.js';

const sandboxCount = 1_000;
const containersPerSandbox = 2;
const rounds = 5;
const callsPerRound = 100;
const pullTimeoutMs = 600_000;

/** The kubelet asks for both lists every second; they must not wait for a pull. */
export const listLatency: Bench = {
  names: ['list-1000'],
  about:
    'p99 of ListPodSandbox + ListContainers with 1,000 pods and 2,000 containers, while an image is pulled',
  minutes: 2,
  async run({ say, quick }) {
    const registry = await RegistryProcess.start();
    const herkosd = await HerkosdProcess.prepare({ logLevel: 'info' });
    try {
      const image = await pushBigImage(registry.target, registry.host);
      await writeRecords(join(herkosd.directory, 'state'));
      await herkosd.restart();
      const client = new Client(`unix:${herkosd.socketPath}`, credentials.createInsecure(), {
        'grpc.default_authority': 'localhost',
      });
      const p99: number[] = [];
      for (let round = 0; round < (quick ? 1 : rounds); round += 1) {
        const pulling = herkosd.client.image(
          'pullImage',
          { image: { image: image.reference } },
          { timeoutMs: pullTimeoutMs },
        );
        p99.push(await oneRound(client));
        await pulling;
        await herkosd.client.image('removeImage', { image: { image: image.reference } });
        say(`round ${String(round + 1)}: p99 ${p99.at(-1)?.toFixed(1) ?? ''} ms`);
      }
      client.close();
      return [row({ name: 'list-1000', unit: 'ms', samples: p99, goal: '<= 20 ms' })];
    } finally {
      await herkosd.cleanUp();
      await registry.stop();
    }
  },
};

/** p99 of both lists together, in milliseconds. */
async function oneRound(client: Client): Promise<number> {
  checked(await listed(client, 'ListPodSandbox'), await listed(client, 'ListContainers'));
  const samples: number[] = [];
  for (let call = 0; call < callsPerRound; call += 1) {
    samples.push(
      await timed(async () => {
        await listed(client, 'ListPodSandbox');
        await listed(client, 'ListContainers');
      }),
    );
  }
  return quantile(
    samples.sort((a, b) => a - b),
    0.99,
  );
}

/**
 * Until the answer's bytes are there. Turning a megabyte into objects takes this client longer than the
 * daemon takes to answer, and is the client's affair.
 */
async function listed(client: Client, rpc: 'ListPodSandbox' | 'ListContainers'): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      `/runtime.v1.RuntimeService/${rpc}`,
      (request: Buffer) => request,
      (wire) => wire,
      Buffer.alloc(0),
      new Metadata(),
      (error, answer) => {
        if (answer === undefined) reject(error ?? new Error(`${rpc} gave no answer`));
        else resolve(answer);
      },
    );
  });
}

function checked(sandboxes: Buffer, containers: Buffer): void {
  const { items } = runtime.v1.ListPodSandboxResponse.decode(sandboxes);
  if (items.length !== sandboxCount) throw new Error('sandboxes are missing');
  const found = runtime.v1.ListContainersResponse.decode(containers).containers;
  if (found.length !== sandboxCount * containersPerSandbox) throw new Error('containers are missing');
}

/** Stopped pods as they would be on disk: the daemon loads them as its own. */
async function writeRecords(stateDir: string): Promise<void> {
  const sandboxes = join(stateDir, 'sandboxes');
  const containers = join(stateDir, 'containers');
  await mkdir(sandboxes, { recursive: true });
  await mkdir(containers, { recursive: true });
  for (let index = 0; index < sandboxCount; index += 1) {
    const sandbox = sandboxRecord(index);
    await writeFile(join(sandboxes, `${sandbox.id}.json`), JSON.stringify(sandbox));
    for (let number = 0; number < containersPerSandbox; number += 1) {
      const container = containerRecord(sandbox, number);
      await writeFile(join(containers, `${container.id}.json`), JSON.stringify(container));
    }
  }
}

function labelsOf(name: string): Record<string, string> {
  return {
    'io.kubernetes.pod.name': name,
    'io.kubernetes.pod.namespace': 'bench',
    'io.kubernetes.pod.uid': `uid-${name}`,
    app: 'bench',
  };
}

function sandboxRecord(index: number): SandboxRecord {
  const name = `pod-${String(index)}`;
  return {
    schemaVersion: 1,
    id: newId(),
    config: sandboxConfig({
      metadata: { name, uid: `uid-${name}`, namespace: 'bench', attempt: 0 },
      labels: labelsOf(name),
    }),
    runtimeHandler: '',
    createdAt: nowUnixNano(),
    phase: 'notready',
    networkRequested: false,
    timings: [],
  };
}

function containerRecord(sandbox: SandboxRecord, number: number): ContainerRecord {
  const now = nowUnixNano();
  return {
    schemaVersion: 1,
    id: newId(),
    sandboxId: sandbox.id,
    config: containerConfig('sleep 1', {
      metadata: { name: `container-${String(number)}`, attempt: 0 },
      labels: labelsOf(sandbox.config.metadata.name),
    }),
    imageId: `sha256:${'0'.repeat(64)}`,
    imageRef: `sha256:${'0'.repeat(64)}`,
    user: { uid: 0, gid: 0, supplementalGroups: [] },
    stopSignal: 15,
    logPath: '',
    createdAt: now,
    startedAt: now,
    finishedAt: now,
    phase: 'exited',
    exit: { code: 0, reason: 'Completed', message: '' },
  };
}

import { HerkosdProcess } from '../tools/herkosd-process.js';
import { RegistryProcess } from '../tools/registry-process.js';
import type { Bench, Row } from './bench.js';
import { row, timed } from './bench.js';
import type { PushedImage } from './big-image.js';
import { pushBigImage } from './big-image.js';
import { ContainerdProcess } from './containerd-process.js';
import { residentMib } from './process-memory.js';

const roundsFull = 5;
const pullTimeoutMs = 600_000;
const sampleEveryMs = 20;

/** Both pull the same image from the same registry, each time into an empty store, taking turns. */
export const imagePull: Bench = {
  names: ['image-pull', 'image-pull-rss'],
  about: 'PullImage until the image can be mounted, against containerd pull + unpack',
  minutes: 3,
  async run({ say, quick }) {
    const registry = await RegistryProcess.start();
    try {
      say('building the image of Debian packages and pushing it');
      const image = await pushBigImage(registry.target, registry.host);
      say(`${String(image.layers)} layers, ${(image.compressedBytes / 1e6).toFixed(0)} MB compressed`);
      return await measure(image, quick ? 1 : roundsFull, say);
    } finally {
      await registry.stop();
    }
  },
};

async function measure(image: PushedImage, rounds: number, say: (line: string) => void): Promise<Row[]> {
  const own: number[] = [];
  const peer: number[] = [];
  const memory: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const containerd = await ContainerdProcess.start();
    try {
      peer.push((await timed(async () => pull(containerd.client, image.reference))) / 1000);
    } finally {
      await containerd.cleanUp();
    }
    const herkosd = await HerkosdProcess.start({ logLevel: 'info' });
    try {
      const idle = await residentMib(herkosd.pid);
      const watch = watchPeak(herkosd.pid);
      own.push((await timed(async () => pull(herkosd.client, image.reference))) / 1000);
      memory.push((await watch()) - idle);
    } finally {
      await herkosd.cleanUp();
    }
    say(
      `round ${String(round + 1)}: ${own.at(-1)?.toFixed(2) ?? ''} s, containerd ${peer.at(-1)?.toFixed(2) ?? ''} s`,
    );
  }
  return [
    row({
      name: 'image-pull',
      unit: 's',
      samples: own,
      goal: '<= 1.0 x',
      peer: { name: 'containerd pull + unpack', samples: peer },
    }),
    row({ name: 'image-pull-rss', unit: 'MiB', samples: memory, goal: 'bounded' }),
  ];
}

async function pull(client: HerkosdProcess['client'], reference: string): Promise<void> {
  await client.image('pullImage', { image: { image: reference } }, { timeoutMs: pullTimeoutMs });
}

/** Samples a process until the returned function is called, which gives the highest it saw. */
function watchPeak(pid: number | undefined): () => Promise<number> {
  let peak = 0;
  const timer = setInterval(() => {
    void residentMib(pid).then((now) => {
      peak = Math.max(peak, now);
    });
  }, sampleEveryMs);
  return async () => {
    clearInterval(timer);
    return Promise.resolve(peak);
  };
}

/**
 * Debian's containerd with its CRI plugin and runc, as the peer of a node of ours: the same CNI
 * configuration file (and so the same bridge and the same address files), an image from the same registry.
 */
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { background } from '../../lib/base/context.js';
import { messageOf } from '../../lib/base/errors.js';
import { systemExec } from '../../lib/base/exec.js';
import { buildLayer, pushImage } from '../tools/image-builder.js';
import { sandboxConfig } from '../tools/pod-config.js';
import type { CriClient } from '../tools/cri-client.js';
import type { HerkosdProcess } from '../tools/herkosd-process.js';
import { RegistryProcess } from '../tools/registry-process.js';
import { buildTar } from '../tools/tar-builder.js';
import { timed } from './bench.js';
import { ContainerdProcess } from './containerd-process.js';

const pauseSource = '#include <unistd.h>\nint main(void) { for (;;) pause(); }\n';
const podTimeoutMs = 60_000;
const listTimeoutMs = 10_000;

export class ContainerdNode {
  readonly directory: string;
  readonly #registry: RegistryProcess;
  readonly #containerd: ContainerdProcess;

  private constructor(registry: RegistryProcess, containerd: ContainerdProcess) {
    this.directory = containerd.directory;
    this.#registry = registry;
    this.#containerd = containerd;
  }

  /** @param herkosd whose network it uses; at least one pod of it must have been made */
  static async start(herkosd: HerkosdProcess): Promise<ContainerdNode> {
    const registry = await RegistryProcess.start();
    try {
      const pauseImage = await pushPauseImage(registry);
      const cniDirectory = join(herkosd.directory, 'state/cni/net.d');
      const containerd = await ContainerdProcess.start({ pauseImage, cniDirectory });
      await containerd.client.image('pullImage', { image: { image: pauseImage } });
      return new ContainerdNode(registry, containerd);
    } catch (error) {
      await registry.stop();
      throw error;
    }
  }

  get client(): CriClient {
    return this.#containerd.client;
  }

  /** RunPodSandbox, called until it returns, in milliseconds; the pod is removed again. */
  async onePod(): Promise<number> {
    let id = '';
    const ms = await timed(async () => {
      id = await this.runSandbox();
    });
    await this.removePod(id);
    return ms;
  }

  /** `count` pods at once: first call to last READY, in milliseconds; they are removed again. */
  async manyPods(count: number): Promise<number> {
    let ids: string[] = [];
    const ms = await timed(async () => {
      ids = await Promise.all(Array.from({ length: count }, async () => this.runSandbox()));
    });
    await Promise.all(ids.map(async (id) => this.removePod(id)));
    return ms;
  }

  async runSandbox(name?: string): Promise<string> {
    const config = sandboxConfig(
      name === undefined ? {} : { name, logDirectory: await this.#logDirectory(name) },
    );
    const answer = await this.client.runtime('runPodSandbox', { config }, { timeoutMs: podTimeoutMs });
    return answer.podSandboxId;
  }

  async removePod(podSandboxId: string): Promise<void> {
    await this.client.runtime('stopPodSandbox', { podSandboxId });
    await this.client.runtime('removePodSandbox', { podSandboxId });
  }

  async stop(): Promise<void> {
    try {
      const { items } = await this.client.runtime('listPodSandbox', {}, { timeoutMs: listTimeoutMs });
      for (const { id } of items) await this.removePod(id ?? '');
    } catch (error) {
      // What was measured is measured, and what failed before must be what is told.
      console.error(`    pods of containerd are removed by force: ${messageOf(error)}`);
    } finally {
      await this.#containerd.cleanUp();
      await this.#registry.stop();
    }
  }

  async #logDirectory(name: string): Promise<string> {
    const path = join(this.directory, 'logs', name);
    await mkdir(path, { recursive: true });
    return path;
  }
}

/** A pause image as Kubernetes' one is: a static program that waits for ever. */
async function pushPauseImage(registry: RegistryProcess): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'herkos-pause-'));
  const program = join(directory, 'pause');
  await systemExec.run(background(), 'gcc', ['-static', '-Os', '-s', '-x', 'c', '-', '-o', program], {
    input: pauseSource,
  });
  const tar = buildTar([{ name: 'pause', content: await readFile(program), mode: 0o755 }]);
  await rm(directory, { recursive: true });
  const layer = await buildLayer(background(), tar);
  await pushImage(registry.target, 'herkos/pause', 'latest', [layer], { Entrypoint: ['/pause'] });
  return `${registry.host}/herkos/pause:latest`;
}

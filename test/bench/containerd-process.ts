/** Debian's containerd as the peer of a benchmark: its own directories and socket, ended after it. */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { CriClient } from '../tools/cri-client.js';
import { endWithUs } from '../tools/end-with-us.js';
import { sweepContainerd } from './containerd-leftovers.js';

const readyTimeoutMs = 30_000;
const stopTimeoutMs = 20_000;

export interface ContainerdCri {
  readonly pauseImage: string;
  /** Where its CNI configuration is. */
  readonly cniDirectory: string;
}

export class ContainerdProcess {
  readonly directory: string;
  readonly #child: ChildProcess;
  readonly client: CriClient;

  private constructor(directory: string, child: ChildProcess) {
    this.directory = directory;
    this.#child = child;
    this.client = new CriClient(join(directory, 'containerd.sock'));
  }

  /** @param cri undefined: for pulls only */
  static async start(cri?: ContainerdCri): Promise<ContainerdProcess> {
    const directory = await mkdtemp('/tmp/herkos-ctrd-');
    const configPath = join(directory, 'config.toml');
    await writeFile(configPath, configText(directory, cri));
    const child = spawn('containerd', ['--config', configPath, '--log-level', 'error'], { stdio: 'ignore' });
    endWithUs(child);
    const containerd = new ContainerdProcess(directory, child);
    try {
      await containerd.client.runtime('version', {}, { timeoutMs: readyTimeoutMs });
    } catch (error) {
      await containerd.cleanUp();
      throw error;
    }
    return containerd;
  }

  /** Ends it and removes everything of it, pods that are there too. */
  async cleanUp(): Promise<void> {
    this.client.close();
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill('SIGTERM');
      const timer = setTimeout(() => this.#child.kill('SIGKILL'), stopTimeoutMs);
      await once(this.#child, 'exit');
      clearTimeout(timer);
    }
    await sweepContainerd(this.directory);
    await rm(this.directory, { recursive: true, force: true });
  }
}

function configText(directory: string, cri: ContainerdCri | undefined): string {
  return `version = 2
root = "${join(directory, 'root')}"
state = "${join(directory, 'state')}"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "${join(directory, 'containerd.sock')}"
[ttrpc]
  address = "${join(directory, 'containerd.sock.ttrpc')}"
${cri === undefined ? '' : criText(cri)}`;
}

/** Debian's plugins are not where containerd looks by itself; everything else is its default. */
function criText({ pauseImage, cniDirectory }: ContainerdCri): string {
  return `[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${pauseImage}"
  # Where root may not lower it, runc cannot start otherwise.
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "${cniDirectory}"
`;
}

/** One CNI driver on a temporary directory, with fake plugins and recorded network tools. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { newId } from '../../../../lib/base/ids.js';
import { CniNetwork } from '../../../../lib/drivers/cni/cni-network.js';
import type { CniSettings } from '../../../../lib/drivers/cni/settings.js';
import type { NetworkRequest } from '../../../../lib/pod/ports.js';
import { RecordingExec } from '../../../fakes/cni-exec.js';
import { MemoryLogger } from '../../../fakes/cni-logger.js';
import { FakePlugins, behave } from '../../../fakes/cni-plugin.js';

export class Scene {
  readonly exec = new RecordingExec();
  readonly logger = new MemoryLogger();
  readonly settings: CniSettings;

  private constructor(
    readonly directory: string,
    readonly plugins: FakePlugins,
    changes: Partial<CniSettings>,
  ) {
    this.settings = {
      instance: 'scene',
      hostHelper: 'herkos-host',
      confDir: join(directory, 'conf'),
      binDirs: [join(directory, 'nowhere'), plugins.binDir],
      stateDir: join(directory, 'state'),
      pluginTimeoutMs: 20_000,
      soleRuntime: false,
      ...changes,
    };
  }

  /** Two plugins that behave, `first` and `second`, in a list of CNI 1.0. */
  static async create(changes: Partial<CniSettings> = {}): Promise<Scene> {
    const directory = await mkdtemp(join(tmpdir(), 'herkos-cni-'));
    const scene = new Scene(directory, await FakePlugins.create(directory), changes);
    await mkdir(scene.settings.confDir);
    await scene.plugins.add('first', { ADD: behave.result });
    await scene.plugins.add('second', { ADD: behave.passOn });
    await scene.configure('10-net.conflist', {});
    return scene;
  }

  async configure(file: string, changes: Record<string, unknown>): Promise<void> {
    const plugins = [{ type: 'first' }, { type: 'second', capabilities: { portMappings: true } }];
    await this.write(file, JSON.stringify({ cniVersion: '1.0.0', name: 'net', plugins, ...changes }));
  }

  async write(file: string, text: string): Promise<void> {
    await writeFile(join(this.settings.confDir, file), text);
  }

  network(): CniNetwork {
    return new CniNetwork(this.exec, this.settings, this.logger);
  }

  request(changes: Partial<NetworkRequest> = {}): NetworkRequest {
    return {
      sandboxId: newId(),
      metadata: { name: 'web', namespace: 'shop', uid: 'u-1', attempt: 0 },
      netnsPath: '/proc/self/ns/net',
      tap: 'tap0',
      portMappings: [],
      ...changes,
    };
  }

  attachmentPath(sandboxId: string): string {
    return join(this.settings.stateDir, 'attachments', `${sandboxId}.json`);
  }

  async dispose(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }
}

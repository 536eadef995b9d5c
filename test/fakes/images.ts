import { createHash } from 'node:crypto';

import type { Context } from '../../lib/base/context.js';
import { HerkosError } from '../../lib/base/errors.js';
import type { ImageUsage, Images, PullListener } from '../../lib/cri/ports.js';
import type { ImageName, RegistryCredentials } from '../../lib/image/ports.js';
import type { ImageRecord } from '../../lib/model/image.js';

/** Images without registries: every name can be pulled, and its id is the digest of the name. */
export class FakeImages implements Images {
  readonly #records = new Map<string, ImageRecord>();
  credentials: RegistryCredentials | undefined;
  /** Called for every pull; a test can wait or fail here. */
  beforePull: (ctx: Context) => Promise<void> = () => Promise.resolve();

  async pull(
    ctx: Context,
    reference: string,
    credentials?: RegistryCredentials,
    progress?: PullListener,
  ): Promise<ImageRecord> {
    this.credentials = credentials;
    progress?.({ phase: 'resolving', layersTotal: 0, layersDone: 0, bytesTotal: 0, bytesDone: 0 });
    await this.beforePull(ctx);
    progress?.({ phase: 'layers', layersTotal: 2, layersDone: 1, bytesTotal: 100, bytesDone: 50 });
    const record = this.add(reference);
    progress?.({ phase: 'done', layersTotal: 2, layersDone: 2, bytesTotal: 100, bytesDone: 100 });
    return record;
  }

  import(
    _ctx: Context,
    path: string,
    name: string | undefined,
    progress?: PullListener,
  ): Promise<ImageRecord[]> {
    if (!path.endsWith('.tar'))
      return Promise.reject(new HerkosError('InvalidArgument', `${path} is not an image archive`));
    progress?.({ phase: 'done', layersTotal: 1, layersDone: 1, bytesTotal: 10, bytesDone: 10 });
    return Promise.resolve([this.add(name ?? 'localhost/imported:latest')]);
  }

  find(reference: string): ImageRecord | undefined {
    return [...this.#records.values()].find(
      ({ id, repoTags, repoDigests }) =>
        id === reference || repoTags.includes(reference) || repoDigests.includes(reference),
    );
  }

  list(): readonly ImageRecord[] {
    return [...this.#records.values()];
  }

  remove(_ctx: Context, reference: string): Promise<void> {
    const record = this.find(reference);
    if (record !== undefined) this.#records.delete(record.id);
    return Promise.resolve();
  }

  usage(): Promise<ImageUsage> {
    return Promise.resolve({ mountpoint: '/var/lib/herkos/images', usedBytes: 4096, inodesUsed: 3 });
  }

  parseName(reference: string): ImageName {
    if (/\s/.test(reference)) throw new HerkosError('InvalidArgument', `'${reference}' is not a reference`);
    const [host = '', ...rest] = reference.split('/');
    return { host, repository: rest.join('/'), tag: 'latest', digest: undefined };
  }

  add(reference: string, user = ''): ImageRecord {
    const hex = createHash('sha256').update(reference).digest('hex');
    const record: ImageRecord = {
      schemaVersion: 1,
      id: `sha256:${hex}`,
      repoTags: [reference],
      repoDigests: [`${reference.replace(/:[^/]*$/, '')}@sha256:${hex}`],
      sizeBytes: 0,
      run: {
        user,
        env: [],
        entrypoint: ['/app'],
        cmd: [],
        workingDir: '',
        stopSignal: '',
        labels: {},
        volumes: [],
      },
      diffIds: [`sha256:${hex}`],
      devices: [{ key: hex, subdirs: [''] }],
      pinned: false,
      pulledAt: '2026-01-01T00:00:00Z',
    };
    this.#records.set(record.id, record);
    return record;
  }
}

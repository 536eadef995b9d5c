import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { Context } from '../../../../lib/base/context.js';
import { HerkosError } from '../../../../lib/base/errors.js';
import { HttpRegistryClient } from '../../../../lib/drivers/registry/registry-client.js';
import type { RegistrySettings } from '../../../../lib/drivers/registry/settings.js';
import { defaultRetry } from '../../../../lib/drivers/registry/settings.js';
import type { Descriptor, ImageSource, RegistryCredentials } from '../../../../lib/image/ports.js';
import { parseReference } from '../../../../lib/wire/oci/reference.js';

export const noCredentials: RegistryCredentials = {
  username: '',
  password: '',
  identityToken: '',
  registryToken: '',
};

/** A client with quick retries and its own hosts directory. */
export class Harness {
  readonly directory: string;
  readonly client: HttpRegistryClient;

  private constructor(directory: string, settings: Partial<RegistrySettings>) {
    this.directory = directory;
    this.client = new HttpRegistryClient({
      hostsDirectory: directory,
      stallTimeoutMs: 10_000,
      connectTimeoutMs: 5_000,
      version: '1.2.3',
      proxy: { httpProxy: undefined, httpsProxy: undefined, noProxy: '' },
      retry: { ...defaultRetry, delayFirstMs: 1, delayMaxMs: 5 },
      ...settings,
    });
  }

  static async open(settings: Partial<RegistrySettings> = {}): Promise<Harness> {
    return new Harness(await mkdtemp(join(tmpdir(), 'herkos-registry-')), settings);
  }

  async close(): Promise<void> {
    await this.client.destroy();
    await rm(this.directory, { recursive: true, force: true });
  }

  /** Writes the settings file of a registry host. */
  async configure(host: string, toml: string): Promise<void> {
    await writeFile(join(this.directory, `${host}.toml`), toml);
  }

  open(credentials: Partial<RegistryCredentials> = {}): ImageSource {
    return this.client.open({ ...noCredentials, ...credentials });
  }

  async blob(
    ctx: Context,
    reference: string,
    blob: Descriptor,
    source: ImageSource = this.open(),
    options?: { verify: boolean },
  ): Promise<Buffer> {
    const parts: Buffer[] = [];
    for await (const part of source.fetchBlob(ctx, parseReference(reference), blob, options))
      parts.push(part);
    return Buffer.concat(parts);
  }
}

/** The HerkosError that `promise` must reject with. */
export async function failure(promise: Promise<unknown>): Promise<HerkosError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof HerkosError) return error;
    throw error;
  }
  throw new Error('it should have failed');
}

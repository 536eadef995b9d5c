/**
 * Images for tests, quickstart and benchmarks, built here and pushed to a real registry: layers from tar
 * archives or from Debian packages, config and manifest as the OCI image-spec has them.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';

import { request } from 'undici';
import type { Dispatcher } from 'undici';

import type { Context } from '../../lib/base/context.js';
import { systemExec } from '../../lib/base/exec.js';
import { MIB } from '../../lib/base/units.js';
import { sha256Digest } from '../../lib/wire/oci/digest.js';
import { mediaTypes } from '../../lib/wire/oci/media-types.js';
import type { Descriptor, LayerCompression } from '../../lib/wire/oci/types.js';

export interface BuiltLayer {
  readonly descriptor: Descriptor;
  readonly diffId: string;
  /** Compressed, as pushed. */
  readonly bytes: Buffer;
}

export interface BuiltImage {
  readonly layers: readonly BuiltLayer[];
  readonly config: Buffer;
  readonly configDescriptor: Descriptor;
  readonly manifest: Buffer;
  readonly manifestDescriptor: Descriptor;
}

/** Members of the OCI config's `config` object, such as `Cmd` and `Env`. */
export type RunConfig = Readonly<Record<string, unknown>>;

export interface PushTarget {
  /** `http://127.0.0.1:5000`, without a path. */
  readonly url: string;
  readonly authorization?: string;
  /** Holds the TLS settings of a registry with its own CA. */
  readonly dispatcher?: Dispatcher;
}

const layerTypes: Readonly<Record<LayerCompression, string>> = {
  none: mediaTypes.ociLayer,
  gzip: mediaTypes.ociLayerGzip,
  zstd: mediaTypes.ociLayerZstd,
};
const packageBytesMax = 1024 * MIB;

/** Compresses a tar archive into a layer. */
export async function buildLayer(
  ctx: Context,
  tar: Buffer,
  compression: LayerCompression = 'gzip',
): Promise<BuiltLayer> {
  const bytes = await compress(ctx, tar, compression);
  const descriptor = {
    mediaType: layerTypes[compression],
    digest: sha256Digest(bytes),
    sizeBytes: bytes.length,
  };
  return { descriptor, diffId: sha256Digest(tar), bytes };
}

/** Config and manifest for layers, lowest first, for this machine's platform. */
export function buildImage(
  layers: readonly BuiltLayer[],
  run: RunConfig = {},
  platform: { readonly os: string; readonly architecture: string } = {
    os: 'linux',
    architecture: hostArchitecture(),
  },
): BuiltImage {
  const config = json({
    ...platform,
    config: run,
    rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.diffId) },
    history: layers.map(() => ({ created_by: 'herkos image-builder' })),
  });
  const configDescriptor = describe(config, mediaTypes.ociConfig);
  const manifest = json({
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    config: wireDescriptor(configDescriptor),
    layers: layers.map((layer) => wireDescriptor(layer.descriptor)),
  });
  return {
    layers,
    config,
    configDescriptor,
    manifest,
    manifestDescriptor: describe(manifest, mediaTypes.ociManifest),
  };
}

/** An index over images, each with its platform. */
export function buildIndex(
  entries: readonly { readonly image: BuiltImage; readonly os: string; readonly architecture: string }[],
): { readonly bytes: Buffer; readonly descriptor: Descriptor } {
  const bytes = json({
    schemaVersion: 2,
    mediaType: mediaTypes.ociIndex,
    manifests: entries.map(({ image, os, architecture }) => ({
      ...wireDescriptor(image.manifestDescriptor),
      platform: { os, architecture },
    })),
  });
  return { bytes, descriptor: describe(bytes, mediaTypes.ociIndex) };
}

/**
 * Pushes a whole image under a tag; blobs that are there already are skipped.
 * @returns the image's manifest digest.
 */
export async function pushImage(
  target: PushTarget,
  repository: string,
  tag: string,
  layers: readonly BuiltLayer[],
  run: RunConfig = {},
): Promise<BuiltImage> {
  const image = buildImage(layers, run);
  await pushBlobs(target, repository, image);
  await pushManifest(target, repository, tag, image.manifest, image.manifestDescriptor.mediaType);
  return image;
}

export async function pushBlobs(target: PushTarget, repository: string, image: BuiltImage): Promise<void> {
  for (const layer of image.layers) await pushBlob(target, repository, layer.descriptor.digest, layer.bytes);
  await pushBlob(target, repository, image.configDescriptor.digest, image.config);
}

export async function pushManifest(
  target: PushTarget,
  repository: string,
  reference: string,
  bytes: Buffer,
  mediaType: string,
): Promise<void> {
  const url = `${target.url}/v2/${repository}/manifests/${reference}`;
  await send(target, 'PUT', url, [201], bytes, mediaType);
}

/**
 * A root file system out of Debian packages: each is downloaded with apt-get and turned into one layer,
 * in the order named. Dependencies are the caller's business: name them, base ones first.
 */
export async function layersFromDebianPackages(
  ctx: Context,
  packages: readonly string[],
  compression: LayerCompression = 'gzip',
): Promise<BuiltLayer[]> {
  const directory = await mkdtemp(join(tmpdir(), 'herkos-debs-'));
  try {
    const layers: BuiltLayer[] = [];
    for (const name of packages) {
      const folder = await mkdtemp(join(directory, 'deb-'));
      // The sandbox user of apt may not write here; the download is verified by apt all the same.
      const args = ['-o', 'APT::Sandbox::User=root', '-qq', 'download', name];
      await systemExec.run(ctx, 'apt-get', args, { cwd: folder, env: { ...definedEnv(), LC_ALL: 'C' } });
      const file = (await readdir(folder)).find((entry) => entry.endsWith('.deb'));
      if (file === undefined) throw new Error(`apt-get downloaded nothing for ${name}`);
      const deb = join(folder, file);
      const { stdout } = await systemExec.run(ctx, 'dpkg-deb', ['--fsys-tarfile', deb], {
        outputBytesMax: packageBytesMax,
      });
      layers.push(await buildLayer(ctx, stdout, compression));
    }
    return layers;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Writes an OCI layout directory that holds one image under a name. */
export async function writeOciLayout(
  directory: string,
  image: BuiltImage,
  refName: string | undefined,
): Promise<void> {
  await mkdir(join(directory, 'blobs', 'sha256'), { recursive: true });
  const put = async (digest: string, bytes: Buffer): Promise<void> =>
    writeFile(join(directory, 'blobs', 'sha256', digest.slice('sha256:'.length)), bytes);
  for (const layer of image.layers) await put(layer.descriptor.digest, layer.bytes);
  await put(image.configDescriptor.digest, image.config);
  await put(image.manifestDescriptor.digest, image.manifest);
  const annotations =
    refName === undefined ? {} : { annotations: { 'org.opencontainers.image.ref.name': refName } };
  await writeFile(join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  await writeFile(
    join(directory, 'index.json'),
    json({ schemaVersion: 2, manifests: [{ ...wireDescriptor(image.manifestDescriptor), ...annotations }] }),
  );
}

/** SHA-256 of a file, for comparing device files. */
export async function fileDigest(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const part of createReadStream(path) as AsyncIterable<Buffer>) hash.update(part);
  return `sha256:${hash.digest('hex')}`;
}

async function pushBlob(
  target: PushTarget,
  repository: string,
  digest: string,
  bytes: Buffer,
): Promise<void> {
  const base = `${target.url}/v2/${repository}/blobs/`;
  const there = await send(target, 'HEAD', base + digest, [200, 404]);
  if (there.status === 200) return;
  const { location } = await send(target, 'POST', `${base}uploads/`, [202]);
  const upload = new URL(location ?? '', target.url);
  upload.searchParams.set('digest', digest);
  await send(target, 'PUT', upload.href, [201], bytes, 'application/octet-stream');
}

async function send(
  target: PushTarget,
  method: 'GET' | 'HEAD' | 'POST' | 'PUT',
  url: string,
  okStatuses: readonly number[],
  body?: Buffer,
  contentType?: string,
): Promise<{ status: number; location: string | undefined }> {
  const {
    statusCode,
    headers,
    body: answer,
  } = await request(url, {
    method,
    headers: {
      ...(contentType === undefined ? {} : { 'content-type': contentType }),
      ...(target.authorization === undefined ? {} : { authorization: target.authorization }),
    },
    ...(body === undefined ? {} : { body }),
    ...(target.dispatcher === undefined ? {} : { dispatcher: target.dispatcher }),
  });
  const text = await answer.text();
  if (!okStatuses.includes(statusCode))
    throw new Error(`${method} ${url}: status ${String(statusCode)}: ${text.slice(0, 200)}`);
  return { status: statusCode, location: headers['location']?.toString() };
}

async function compress(ctx: Context, tar: Buffer, compression: LayerCompression): Promise<Buffer> {
  if (compression === 'none') return tar;
  if (compression === 'gzip') return promisify(gzip)(tar, { level: 6 });
  const directory = await mkdtemp(join(tmpdir(), 'herkos-zstd-'));
  try {
    const plain = join(directory, 'layer.tar');
    await writeFile(plain, tar);
    await systemExec.run(ctx, 'zstd', ['-q', plain]);
    const { size } = await stat(`${plain}.zst`);
    if (size === 0) throw new Error('zstd wrote nothing');
    return await readFile(`${plain}.zst`);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function describe(bytes: Buffer, mediaType: string): Descriptor {
  return { mediaType, digest: sha256Digest(bytes), sizeBytes: bytes.length };
}

function wireDescriptor(descriptor: Descriptor): Readonly<Record<string, unknown>> {
  return { mediaType: descriptor.mediaType, digest: descriptor.digest, size: descriptor.sizeBytes };
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function hostArchitecture(): string {
  return process.arch === 'x64' ? 'amd64' : process.arch;
}

function definedEnv(): Record<string, string> {
  return Object.fromEntries(
    Object.entries(process.env).filter((pair): pair is [string, string] => pair[1] !== undefined),
  );
}

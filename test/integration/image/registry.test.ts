import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { MIB } from '../../../lib/base/units.js';
import type { RegistryCredentials } from '../../../lib/image/ports.js';
import type { ImageRecord } from '../../../lib/model/image.js';
import type { LayerCompression } from '../../../lib/wire/oci/types.js';
import { buildLayer, fileDigest, layersFromDebianPackages, pushImage } from '../../tools/image-builder.js';
import type { BuiltLayer } from '../../tools/image-builder.js';
import { RegistryProcess } from '../../tools/registry-process.js';
import { buildTar } from '../../tools/tar-builder.js';
import { failure } from '../../unit/drivers/registry/harness.js';
import { Bench } from '../erofs/host-mount.js';
import type { ImageParts } from './parts.js';
import { layerFiles, mountSmallDisk, openImages, temporaryDirectory } from './parts.js';

const ctx = background();
const login = { username: 'somebody', password: 'pass:word' };
const credentials: RegistryCredentials = { ...login, identityToken: '', registryToken: '' };
const kills = 25;

async function layerOf(
  name: string,
  content: string | Uint8Array,
  how: LayerCompression = 'gzip',
): Promise<BuiltLayer> {
  const entries = [
    { name: 'etc/', type: 'directory' as const },
    { name: `etc/${name}`, content },
  ];
  return buildLayer(ctx, buildTar(entries), how);
}

/** Every device file is a sound file system for its real reader, and nothing else lies there. */
async function expectSound(directory: string, records: readonly ImageRecord[]): Promise<void> {
  const keys = new Set(records.flatMap((record) => record.devices.map((device) => device.key)));
  expect(await layerFiles(directory)).to.deep.equal([...keys].sort());
  for (const key of keys) {
    const path = join(directory, 'image', 'layers', key);
    const { size, mode } = await stat(path);
    expect(size % (2 * MIB)).to.equal(0);
    expect(mode & 0o222).to.equal(0);
    await Bench.run((bench) => {
      bench.check(path);
      return Promise.resolve();
    });
  }
}

describe('images from a real registry', function () {
  this.timeout(180_000);
  let registry: RegistryProcess;
  let directory: string;
  let parts: ImageParts | undefined;

  const open = async (): Promise<ImageParts['images']> => {
    await parts?.close();
    parts = await openImages(directory);
    await parts.images.collectGarbage();
    return parts.images;
  };

  beforeEach(async () => {
    directory = await temporaryDirectory();
  });

  afterEach(async () => {
    await parts?.close();
    parts = undefined;
    await rm(directory, { recursive: true, force: true });
  });

  describe('over TLS with a login', () => {
    before(async () => {
      registry = await RegistryProcess.start({ tls: true, login });
    });

    after(async () => {
      await registry.stop();
    });

    const trust = async (): Promise<void> => {
      await mkdir(join(directory, 'registries.d'), { recursive: true });
      const file = join(directory, 'registries.d', `${registry.host}.toml`);
      await writeFile(file, `ca = "${registry.certificates?.caPath ?? ''}"\n`);
    };

    it('pulls layers of every compression and reads files out of them', async () => {
      const layers = [
        await layerOf('passwd', 'root:x:0:0::/:/bin/sh\n', 'none'),
        await layerOf('group', 'root:x:0:\n', 'zstd'),
        await layerOf('passwd', 'me:x:7:7::/:/bin/sh\n', 'gzip'),
      ];
      const image = await pushImage(registry.target, 'team/app', 'v1', layers, { User: 'me' });
      await trust();
      const images = await open();
      const record = await images.pull(ctx, `${registry.host}/team/app:v1`, credentials);
      expect(record.id).to.equal(image.configDescriptor.digest);
      expect(record.repoDigests[0]).to.contain(image.manifestDescriptor.digest);
      await expectSound(directory, [record]);
      expect((await images.readFile(record.id, '/etc/passwd', 1000))?.toString()).to.equal(
        'me:x:7:7::/:/bin/sh\n',
      );
      expect((await images.readFile(record.id, '/etc/group', 1000))?.toString()).to.equal('root:x:0:\n');
      expect(await images.readFile(record.id, '/etc/shadow', 1000)).to.equal(undefined);
    });

    it('refuses without trust, without a login and with a wrong one', async () => {
      await pushImage(registry.target, 'team/app', 'v2', [await layerOf('a', 'b')]);
      const reference = `${registry.host}/team/app:v2`;
      const images = await open();
      expect((await failure(images.pull(ctx, reference, credentials))).message).to.match(
        /certificate is not trusted/,
      );
      await trust();
      expect((await failure(images.pull(ctx, reference))).class).to.equal('Unauthenticated');
      const wrong = { ...credentials, password: 'guessed' };
      expect((await failure(images.pull(ctx, reference, wrong))).class).to.equal('Unauthenticated');
      expect((await failure(images.pull(ctx, `${registry.host}/team/none:v2`, credentials))).class).to.equal(
        'NotFound',
      );
      await images.pull(ctx, reference, credentials);
    });
  });

  describe('over plain HTTP', () => {
    before(async () => {
      registry = await RegistryProcess.start();
    });

    after(async () => {
      await registry.stop();
    });

    it('joins the layers of an image with many of them, the same way every time', async () => {
      const layers = await Promise.all(
        Array.from({ length: 20 }, async (_, index) =>
          layerOf(`f${String(index)}`, randomBytes(100 * (index + 1))),
        ),
      );
      await pushImage(registry.target, 'many/layers', 'v1', layers);
      let images = await open();
      const record = await images.pull(ctx, `${registry.host}/many/layers:v1`);
      expect(record.devices.length).to.equal(8);
      await expectSound(directory, [record]);
      for (const index of [0, 7, 19])
        expect((await images.readFile(record.id, `/etc/f${String(index)}`, 10_000))?.length).to.equal(
          100 * (index + 1),
        );
      const digests = await Promise.all(
        record.devices.map(async ({ key }) => fileDigest(join(directory, 'image', 'layers', key))),
      );
      await images.remove(ctx, record.id);
      expect(await layerFiles(directory)).to.deep.equal([]);
      images = await open();
      const again = await images.pull(ctx, `${registry.host}/many/layers:v1`);
      expect(again.devices).to.deep.equal(record.devices);
      const later = await Promise.all(
        again.devices.map(async ({ key }) => fileDigest(join(directory, 'image', 'layers', key))),
      );
      expect(later).to.deep.equal(digests);
    });

    it('pulls an image made of Debian packages', async () => {
      const layers = await layersFromDebianPackages(ctx, ['base-files', 'busybox-static'], 'zstd');
      await pushImage(registry.target, 'debian/busybox', 'latest', layers, { Cmd: ['/bin/busybox', 'sh'] });
      const images = await open();
      const record = await images.pull(ctx, `${registry.host}/debian/busybox`);
      await expectSound(directory, [record]);
      expect((await images.readFile(record.id, '/etc/debian_version', 100))?.toString()).to.match(/\d/);
      expect((await images.readFile(record.id, '/bin/busybox', 8 * MIB))?.subarray(1, 4).toString()).to.equal(
        'ELF',
      );
    });

    it('refuses hostile layers by name and leaves nothing of their images', async () => {
      const good = await layerOf('good', 'file');
      const hostile: readonly (readonly [string, Buffer, RegExp])[] = [
        ['climbing', buildTar([{ name: '../../outside', content: 'x' }]), /outside/],
        ['absolute', buildTar([{ name: '/etc/passwd', content: 'x' }]), /passwd/],
        [
          'truncated',
          buildTar([{ name: 'a', content: 'x'.repeat(5000) }]).subarray(0, 2048),
          /middle of an entry/,
        ],
        ['noise', randomBytes(4096), /./],
      ];
      const images = await open();
      for (const [name, tar, why] of hostile) {
        const layer = await buildLayer(ctx, tar);
        await pushImage(registry.target, `hostile/${name}`, 'v1', [good, layer]);
        const error = await failure(images.pull(ctx, `${registry.host}/hostile/${name}:v1`));
        expect(error.message).to.match(why).and.contain(layer.descriptor.digest);
        expect(error.class, name).to.be.oneOf(['InvalidArgument', 'DataLoss', 'FailedPrecondition']);
        expect(await layerFiles(directory)).to.deep.equal([]);
      }
      const lying = { ...(await layerOf('lie', 'one')), diffId: good.diffId };
      await pushImage(registry.target, 'hostile/lying', 'v1', [lying]);
      expect((await failure(images.pull(ctx, `${registry.host}/hostile/lying:v1`))).class).to.equal(
        'DataLoss',
      );
      expect(await layerFiles(directory)).to.deep.equal([]);
    });

    it('says that the disk is full, before or in the middle, and leaves nothing', async () => {
      const noise = randomBytes(6 * MIB);
      const zeros = Buffer.alloc(64 * MIB, 'herkos ');
      await pushImage(registry.target, 'big/noise', 'v1', [await layerOf('noise', noise)]);
      await pushImage(registry.target, 'big/bomb', 'v1', [
        await layerOf('a', 'small'),
        await layerOf('bomb', zeros),
      ]);
      const disk = await mountSmallDisk(5 * MIB);
      try {
        const small = await openImages(disk.path);
        try {
          const before = await failure(small.images.pull(ctx, `${registry.host}/big/noise:v1`));
          expect(before.class).to.equal('ResourceExhausted');
          expect(before.message).to.match(/the layers need more than 6\.\d MiB/);
          const middle = await failure(small.images.pull(ctx, `${registry.host}/big/bomb:v1`));
          expect(middle.class).to.equal('ResourceExhausted');
          expect(middle.message).to.match(/no space|full/);
          expect(await layerFiles(disk.path)).to.deep.equal([]);
          expect(small.images.list()).to.deep.equal([]);
        } finally {
          await small.close();
        }
      } finally {
        await disk.remove();
      }
    });

    it(`is sound after each of ${String(kills)} kills at random moments`, async () => {
      const shared = await layerOf('shared', randomBytes(2 * MIB));
      const references: string[] = [];
      for (const name of ['a', 'b', 'c']) {
        const own = await Promise.all(
          [1, 2, 3].map(async (number) => layerOf(`${name}${String(number)}`, randomBytes(MIB))),
        );
        await pushImage(registry.target, `kill/${name}`, 'v1', [shared, ...own]);
        references.push(`${registry.host}/kill/${name}:v1`);
      }
      const many = await Promise.all(
        Array.from({ length: 12 }, async (_, index) => layerOf(`m${String(index)}`, randomBytes(5000))),
      );
      await pushImage(registry.target, 'kill/many', 'v1', many);
      references.push(`${registry.host}/kill/many:v1`);
      const program = fileURLToPath(new URL('pull-and-die.js', import.meta.url));
      for (let kill = 0; kill < kills; kill += 1) {
        await runAndKill(program, [directory, ...references], Math.random() * 700);
        const images = await open();
        const records = images.list();
        await expectSound(directory, records);
        for (const record of records)
          expect(await images.hold(record.id, 'probe')).to.have.length(record.devices.length);
        await images.releaseGone('probe');
      }
      const images = await open();
      for (const reference of references) await images.pull(ctx, reference);
      await expectSound(directory, images.list());
      expect(images.list().length).to.equal(references.length);
    });
  });
});

/** Runs a program and kills it without warning some time after it says that it is ready. */
async function runAndKill(program: string, args: readonly string[], afterMs: number): Promise<void> {
  const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  child.stderr.on('data', (part: Buffer) => {
    said += part.toString('utf8');
  });
  const ended = new Promise<NodeJS.Signals | null>((resolve) => {
    child.once('exit', (_code, signal) => {
      resolve(signal);
    });
  });
  await Promise.race([new Promise((resolve) => child.stdout.once('data', resolve)), ended]);
  setTimeout(() => child.kill('SIGKILL'), afterMs);
  expect(await ended, said).to.equal('SIGKILL');
}

import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

import { expect } from 'chai';
import fc from 'fast-check';

import { background } from '../../../lib/base/context.js';
import { HerkosError } from '../../../lib/base/errors.js';
import { openArchive } from '../../../lib/image/archive/open-archive.js';
import type { ImageRecord } from '../../../lib/model/image.js';
import { systemExec } from '../../../lib/base/exec.js';
import type { BuiltImage } from '../../tools/image-builder.js';
import { buildImage, buildLayer, writeOciLayout } from '../../tools/image-builder.js';
import type { TarEntry } from '../../tools/tar-builder.js';
import { buildTar } from '../../tools/tar-builder.js';
import { failure } from '../drivers/registry/harness.js';
import { ImageWorld, keysOf } from './world.js';

const ctx = background();

describe('image import', () => {
  let world: ImageWorld;
  let directory: string;
  let image: BuiltImage;

  const path = (name: string): string => join(directory, name);
  const take = async (name: string, as?: string): Promise<ImageRecord[]> =>
    world.images.import(ctx, path(name), as);
  const tarFile = async (name: string, entries: readonly TarEntry[]): Promise<void> =>
    writeFile(path(name), buildTar(entries));
  const docker = (tags: unknown, more: readonly TarEntry[] = []): TarEntry[] => [
    { name: 'config.json', content: image.config },
    { name: 'aa/layer.tar', content: image.layers[0]?.bytes ?? '' },
    { name: 'bb', type: 'directory' },
    { name: 'bb/layer.tar', content: image.layers[1]?.bytes ?? '' },
    ...more,
    {
      name: 'manifest.json',
      content: JSON.stringify([
        { Config: 'config.json', RepoTags: tags, Layers: ['aa/layer.tar', 'bb/layer.tar'] },
      ]),
    },
  ];

  beforeEach(async () => {
    world = await ImageWorld.open();
    directory = await mkdtemp(join(tmpdir(), 'herkos-archive-'));
    const layers = [
      await buildLayer(ctx, buildTar([{ name: 'a', content: 'one' }]), 'none'),
      await buildLayer(ctx, buildTar([{ name: 'b', content: 'two' }]), 'gzip'),
    ];
    image = buildImage(layers, { Cmd: ['/x'] });
  });

  afterEach(async () => {
    await world.close();
    await rm(directory, { recursive: true, force: true });
  });

  it('takes an OCI layout: a directory, a tar file and a gzip of it', async () => {
    await writeOciLayout(path('layout'), image, 'r.example/team/app:v1');
    await systemExec.run(ctx, 'tar', ['-cf', path('plain.tar'), '-C', path('layout'), '.']);
    await systemExec.run(ctx, 'tar', ['-czf', path('small.tar.gz'), '-C', path('layout'), '.']);
    for (const name of ['layout', 'plain.tar', 'small.tar.gz']) {
      const [record] = await take(name);
      expect(record?.id).to.equal(image.configDescriptor.digest);
      expect(record?.repoTags).to.deep.equal(['r.example/team/app:v1']);
      expect(record?.repoDigests).to.deep.equal([`r.example/team/app@${image.manifestDescriptor.digest}`]);
      expect(await world.files()).to.deep.equal(keysOf(record));
      await world.images.remove(ctx, record?.id ?? '');
    }
    expect(await readdir(join(world.directory, 'image', 'import'))).to.deep.equal([]);
  });

  it('calls an image what it is told to', async () => {
    await writeOciLayout(path('layout'), image, 'r.example/team/app:v1');
    expect((await take('layout', 'mine:2'))[0]?.repoTags).to.deep.equal(['docker.io/library/mine:2']);
    expect((await failure(take('layout', 'NOT VALID'))).class).to.equal('InvalidArgument');
  });

  it('takes a layout without a name, but not one with half a name', async () => {
    await writeOciLayout(path('bare'), image, undefined);
    expect((await take('bare'))[0]).to.deep.include({ repoTags: [], repoDigests: [] });
    await writeOciLayout(path('half'), image, 'latest');
    expect((await failure(take('half'))).message).to.match(/only by the tag 'latest'; say what to call it/);
    expect((await take('half', 'x:1'))[0]?.repoTags).to.deep.equal(['docker.io/library/x:1']);
  });

  it('takes a Docker archive with all its names, compressed layers and links', async () => {
    await tarFile('plain.tar', docker(['app:1', 'r.example/app:2']));
    const records = await take('plain.tar');
    expect(records.at(-1)?.repoTags).to.deep.equal(['docker.io/library/app:1', 'r.example/app:2']);
    expect(records.at(-1)?.repoDigests).to.deep.equal([]);
    expect(records.at(-1)?.run.cmd).to.deep.equal(['/x']);
    expect(await world.files()).to.deep.equal(keysOf(records[0]));

    const entries = docker(null).map((entry) =>
      entry.name === 'aa/layer.tar'
        ? { name: 'aa/layer.tar', type: 'symlink' as const, target: '../cc/layer.tar' }
        : entry,
    );
    await writeFile(
      path('links.tar.gz'),
      gzipSync(buildTar([...entries, { name: 'cc/layer.tar', content: image.layers[0]?.bytes ?? '' }])),
    );
    expect((await take('links.tar.gz', 'linked'))[0]?.repoTags).to.contain('docker.io/library/linked:latest');
  });

  it('reads no file outside of an unpacked Docker archive', async () => {
    const files = docker(['a:1']).filter(({ content }) => content !== undefined);
    for (const root of ['up', 'linked', 'good'])
      for (const { name, content } of files) {
        await mkdir(join(path(root), name, '..'), { recursive: true });
        await writeFile(join(path(root), name), content ?? '');
      }
    await writeFile(path('secret'), image.layers[0]?.bytes ?? '');
    await symlink(directory, join(path('linked'), 'out'));
    const name = async (root: string, layer: string): Promise<void> =>
      writeFile(
        join(path(root), 'manifest.json'),
        JSON.stringify([{ Config: 'config.json', RepoTags: ['a:1'], Layers: [layer, 'bb/layer.tar'] }]),
      );
    await name('up', '../secret');
    await name('linked', 'out/secret');
    expect((await take('good')).length).to.equal(1);
    for (const root of ['up', 'linked'])
      expect(await failure(take(root)), root)
        .property('message')
        .match(/has no file .*secret/);
  });

  describe('refuses, and leaves nothing of,', () => {
    const withManifest = (text: string): TarEntry[] => [{ name: 'manifest.json', content: text }];
    const cases: readonly (readonly [string, () => Promise<void>, RegExp])[] = [
      ['a path that is not there', async () => Promise.resolve(), /there is no archive/],
      ['an empty file', async () => writeFile(path('x'), ''), /empty|no image archive/],
      ['a text', async () => writeFile(path('x'), 'hello '.repeat(1000)), /./],
      [
        'a tar file of something else',
        async () => tarFile('x', [{ name: 'readme', content: 'hi' }]),
        /no image archive/,
      ],
      [
        'a truncated tar file',
        async () => writeFile(path('x'), buildTar(docker(['a:1'])).subarray(0, 2000)),
        /middle of an entry|early/,
      ],
      [
        'a truncated gzip',
        async () => writeFile(path('x'), gzipSync(buildTar(docker(['a:1']))).subarray(0, 300)),
        /cannot be unpacked/,
      ],
      [
        'a zstd archive',
        async () => writeFile(path('x'), Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0])),
        /zstd -d/,
      ],
      ['a table that is no JSON', async () => tarFile('x', withManifest('{')), /not JSON/],
      ['a table without images', async () => tarFile('x', withManifest('[]')), /has no images/],
      [
        'a table that names files outside',
        async () => tarFile('x', withManifest('[{"Config":"../../../etc/passwd","Layers":[]}]')),
        /has no file/,
      ],
      [
        'a config that is missing',
        async () => tarFile('x', withManifest('[{"Config":"c","Layers":[]}]')),
        /has no file c/,
      ],
      [
        'a layer that is missing',
        async () =>
          tarFile(
            'x',
            docker(['a:1']).filter((entry) => entry.name !== 'aa/layer.tar'),
          ),
        /has no file aa/,
      ],
      [
        'links in a circle',
        async () =>
          tarFile('x', [
            ...docker(['a:1']).filter((entry) => entry.name !== 'aa/layer.tar'),
            { name: 'aa/layer.tar', type: 'symlink', target: 'layer2.tar' },
            { name: 'aa/layer2.tar', type: 'symlink', target: 'layer.tar' },
          ]),
        /has no file aa/,
      ],
      [
        'a layer with other bytes',
        async () =>
          tarFile(
            'x',
            docker(['a:1']).map((entry) =>
              entry.name === 'aa/layer.tar' ? { ...entry, content: buildTar([{ name: 'z' }]) } : entry,
            ),
          ),
        /digest/,
      ],
      ['a name that is none', async () => tarFile('x', docker(['Not A Name'])), /not valid/],
      [
        'a layout of another version',
        async () => tarFile('x', [{ name: 'oci-layout', content: '{"imageLayoutVersion":"2.0.0"}' }]),
        /version 2\.0\.0/,
      ],
      [
        'a layout without an index',
        async () => tarFile('x', [{ name: 'oci-layout', content: '{"imageLayoutVersion":"1.0.0"}' }]),
        /index\.json/,
      ],
      [
        'a layout without images',
        async () => {
          await mkdir(path('x'));
          await writeFile(path('x/oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
          await writeFile(path('x/index.json'), '{"schemaVersion":2,"manifests":[]}');
        },
        /has no images/,
      ],
      [
        'a layout with a wrong manifest',
        async () => {
          await writeOciLayout(path('x'), image, 'a:1');
          await writeFile(path(`x/blobs/sha256/${image.manifestDescriptor.digest.slice(7)}`), '{}');
        },
        /another digest/,
      ],
      [
        'a layout with a wrong config',
        async () => {
          await writeOciLayout(path('x'), image, 'a:1');
          await writeFile(
            path(`x/blobs/sha256/${image.configDescriptor.digest.slice(7)}`),
            Buffer.alloc(image.config.length),
          );
        },
        /another digest/,
      ],
      [
        'a layout with a short layer',
        async () => {
          await writeOciLayout(path('x'), image, 'a:1');
          await writeFile(
            path(`x/blobs/sha256/${image.layers[0]?.descriptor.digest.slice(7) ?? ''}`),
            'short',
          );
        },
        /5 bytes, the manifest says/,
      ],
      [
        'a layout that links out of itself',
        async () => {
          await writeOciLayout(path('x'), image, 'a:1');
          await rm(path(`x/blobs/sha256/${image.configDescriptor.digest.slice(7)}`));
          await symlink('/etc/passwd', path(`x/blobs/sha256/${image.configDescriptor.digest.slice(7)}`));
        },
        /has no file/,
      ],
      [
        'a pipe in a layout',
        async () => {
          await mkdir(path('x'));
          await systemExec.run(ctx, 'mkfifo', [path('x/oci-layout')]);
        },
        /no image archive/,
      ],
      ['a device', async () => symlink('/dev/zero', path('x')), /neither a file nor a directory/],
    ];
    for (const [what, make, why] of cases) {
      it(what, async () => {
        await make();
        const error = await failure(take('x'));
        expect(error.message).to.match(why);
        expect(error.class).to.be.oneOf(['NotFound', 'FailedPrecondition', 'DataLoss', 'InvalidArgument']);
        expect(await world.files()).to.deep.equal([]);
        expect(world.images.list()).to.deep.equal([]);
        const scratch = join(world.directory, 'image', 'import');
        expect(await readdir(scratch).catch(() => [])).to.deep.equal([]);
      });
    }

    it('an archive that unpacks to more than the disk may give', async () => {
      await world.restart({ freeBytesMin: 2 ** 60 });
      await writeFile(path('x'), gzipSync(buildTar(docker(['a:1']))));
      const error = await failure(take('x'));
      expect(error.class).to.equal('ResourceExhausted');
      expect(await readdir(join(world.directory, 'image', 'import'))).to.deep.equal([]);
    });

    it('one name for several images', async () => {
      const other = buildImage([await buildLayer(ctx, buildTar([{ name: 'c' }]), 'none')]);
      await writeOciLayout(path('x'), image, 'a:1');
      await writeOciLayout(path('y'), other, 'b:1');
      await systemExec.run(ctx, 'cp', ['-rn', path('y/blobs'), path('x')]);
      const entry = (built: BuiltImage): object => ({
        mediaType: built.manifestDescriptor.mediaType,
        digest: built.manifestDescriptor.digest,
        size: built.manifest.length,
      });
      await writeFile(
        path('x/index.json'),
        JSON.stringify({ schemaVersion: 2, manifests: [entry(image), entry(other)] }),
      );
      expect((await failure(take('x', 'name'))).message).to.match(/several images/);
      expect((await take('x')).length).to.equal(2);
    });
  });

  it('answers any archive with images or a HerkosError', async () => {
    const whole = buildTar(docker(['a:1']));
    await fc.assert(
      fc.asyncProperty(
        fc.nat({ max: whole.length - 1 }),
        fc.uint8Array({ minLength: 1, maxLength: 40 }),
        async (at, bytes) => {
          const broken = Buffer.from(whole);
          broken.set(bytes.subarray(0, broken.length - at), at);
          await writeFile(path('fuzz.tar'), broken);
          try {
            const archive = await openArchive(ctx, path('fuzz.tar'), path('scratch'), 0);
            await archive.close();
          } catch (error) {
            expect(error).to.be.instanceOf(HerkosError);
          }
        },
      ),
      { numRuns: 150 },
    );
  });
});

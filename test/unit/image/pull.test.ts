import { randomBytes } from 'node:crypto';

import { expect } from 'chai';

import { background, withCancel } from '../../../lib/base/context.js';
import { messageOf } from '../../../lib/base/errors.js';
import type { PullProgress } from '../../../lib/cri/ports.js';
import { sha256Digest } from '../../../lib/wire/oci/digest.js';
import { mediaTypes } from '../../../lib/wire/oci/media-types.js';
import { FakeRegistry, resetAfter } from '../../fakes/registry-server.js';
import { buildIndex } from '../../tools/image-builder.js';
import { failure } from '../drivers/registry/harness.js';
import { ImageWorld, keysOf } from './world.js';

const ctx = background();

describe('ImageService: pull', () => {
  let world: ImageWorld;

  beforeEach(async () => {
    world = await ImageWorld.open();
  });

  afterEach(async () => {
    await world.close();
  });

  it('stores files and a record that says what the image is', async () => {
    const run = { User: '5:6', Env: ['A=b'], Cmd: ['/x'], Labels: { l: 'm' } };
    const image = await world.serve('team/app', 'v1', ['one', 'two'], run);
    const record = await world.pull('team/app:v1');
    expect(record).to.deep.include({
      id: image.configDescriptor.digest,
      repoTags: [world.name('team/app:v1')],
      repoDigests: [world.name(`team/app@${image.manifestDescriptor.digest}`)],
      diffIds: image.layers.map((layer) => layer.diffId),
      sizeBytes: image.config.length + image.layers.reduce((sum, layer) => sum + layer.bytes.length, 0),
    });
    expect(record.run).to.deep.include({ user: '5:6', env: ['A=b'], cmd: ['/x'], labels: { l: 'm' } });
    expect(await world.files()).to.deep.equal(keysOf(record));
    expect(world.observer.told).to.deep.equal(['pull OK']);
    expect(world.bytesPulled).to.equal(record.sizeBytes);
    expect(world.images.find('team/app')).to.equal(undefined);
    expect(world.images.find(world.name('team/app:v1'))).to.deep.equal(record);
  });

  it('by digest gives no tag; through an index names the index', async () => {
    const image = await world.serve('team/app', 'v1', ['one']);
    const index = buildIndex([
      { image, os: 'linux', architecture: 'sparc64' },
      { image, os: 'linux', architecture: process.arch === 'x64' ? 'amd64' : process.arch },
    ]);
    world.registry.addManifest('team/app', 'multi', index.bytes, mediaTypes.ociIndex);
    const byDigest = await world.pull(`team/app@${image.manifestDescriptor.digest}`);
    expect(byDigest.repoTags).to.deep.equal([]);
    const byIndex = await world.pull('team/app:multi');
    expect(byIndex.id).to.equal(byDigest.id);
    expect(byIndex.repoTags).to.deep.equal([world.name('team/app:multi')]);
    expect(byIndex.repoDigests).to.deep.equal([
      world.name(`team/app@${image.manifestDescriptor.digest}`),
      world.name(`team/app@${index.descriptor.digest}`),
    ]);
    expect(world.images.list().length).to.equal(1);
  });

  it('fetches no layer twice, and asks again what a tag means', async () => {
    await world.serve('team/app', 'v1', ['base', 'one']);
    await world.pull('team/app:v1');
    await world.serve('team/app', 'v2', ['base', 'two']);
    await world.pull('team/app:v2');
    await world.pull('team/app:v2');
    expect(world.converter.conversions).to.equal(3);
    expect(world.registry.requests.filter((seen) => seen.url.endsWith('/manifests/v2')).length).to.equal(2);
    expect((await world.files()).length).to.equal(3);
  });

  it('fetches a layer that several pulls want at once only once', async () => {
    await world.serve('team/app', 'v1', ['base', 'one']);
    await world.serve('team/app', 'v2', ['base', 'two']);
    await Promise.all(['v1', 'v1', 'v2', 'v2'].map(async (tag) => world.pull(`team/app:${tag}`)));
    expect(world.converter.conversions).to.equal(3);
    expect(world.images.list().length).to.equal(2);
  });

  it('goes on with a layer when the pull that was fetching it is cancelled', async () => {
    await world.serve('team/app', 'v1', ['base']);
    const first = withCancel(ctx);
    let calls = 0;
    let begun: () => void = () => undefined;
    const isBegun = new Promise<void>((resolve) => {
      begun = resolve;
    });
    world.converter.beforeRename = async (inner) => {
      calls += 1;
      if (calls > 1) return;
      begun();
      await new Promise<void>((resolve) => {
        inner.signal.addEventListener('abort', () => {
          resolve();
        });
      });
    };
    const cancelled = failure(world.images.pull(first, world.name('team/app:v1')));
    await isBegun;
    const second = world.pull('team/app:v1');
    first.cancel();
    expect((await cancelled).class).to.equal('Cancelled');
    const record = await second;
    expect(await world.files()).to.deep.equal(keysOf(record));
  });

  it('moves a tag to the image it now means; the other keeps its digest', async () => {
    await world.serve('team/app', 'v1', ['one']);
    const before = await world.pull('team/app:v1');
    await world.serve('team/app', 'v1', ['two']);
    const after = await world.pull('team/app:v1');
    expect(after.id).to.not.equal(before.id);
    expect(world.images.find(before.id)?.repoTags).to.deep.equal([]);
    expect(world.images.find(before.id)?.repoDigests).to.deep.equal(before.repoDigests);
    expect(world.images.find(world.name('team/app:v1'))?.id).to.equal(after.id);
    await world.restart();
    expect(world.images.find(world.name('team/app:v1'))?.id).to.equal(after.id);
  });

  it('is one image with several names when the config is the same', async () => {
    await world.serve('team/app', 'v1', ['one']);
    await world.serve('other/app', 'v2', ['one']);
    await world.pull('team/app:v1');
    const record = await world.pull('other/app:v2');
    expect(record.repoTags).to.deep.equal([world.name('team/app:v1'), world.name('other/app:v2')]);
    expect(world.images.list()).to.deep.equal([record]);
  });

  it('keeps the devices of an image whose layers come compressed in another way', async () => {
    const contents = Array.from({ length: 12 }, (_, index) => randomBytes(10 + index * 37).toString('hex'));
    await world.serve('team/app', 'gz', contents);
    const first = await world.pull('team/app:gz');
    await world.serve('team/app', 'plain', contents, {}, 'none');
    const second = await world.pull('team/app:plain');
    expect(second.id).to.equal(first.id);
    expect(second.devices).to.deep.equal(first.devices);
    expect(world.converter.conversions).to.equal(12);
  });

  it('joins layers until there are eight devices and keeps no single layer of them', async () => {
    await world.serve(
      'team/app',
      'v1',
      Array.from({ length: 20 }, (_, index) => `layer ${String(index)}`),
    );
    const record = await world.pull('team/app:v1');
    expect(record.devices.length).to.equal(8);
    expect(record.devices.flatMap((device) => device.subdirs).length).to.equal(20);
    expect(await world.files()).to.deep.equal(keysOf(record));
    const { conversions } = world.converter;
    await world.pull('team/app:v1');
    expect(world.converter.conversions).to.equal(conversions);
  });

  it('bounds joined layers by what they may have together, and by the disk', async () => {
    await world.restart({ limits: { entriesMax: 1000, deviceBytesMax: 5000 }, freeBytesMin: 7 });
    const layers = Array.from({ length: 10 }, (_, index) => `layer ${String(index)}`);
    await world.serve('team/app', 'v1', layers);
    await world.pull('team/app:v1');
    const { convertLimits, joinLimits } = world.converter;
    expect(convertLimits[0]).to.deep.equal({ entriesMax: 1000, deviceBytesMax: 5000, freeBytesMin: 7 });
    expect(joinLimits).to.not.deep.equal([]);
    for (const { files, limits } of joinLimits)
      expect(limits).to.include({
        entriesMax: 1000 * files,
        deviceBytesMax: 5000 * files,
        freeBytesMin: 7,
      });
  });

  it('does not wait for a layer that another registry is slow to give', async () => {
    const slow = await FakeRegistry.start();
    const image = await world.serve('team/app', 'v1', ['one']);
    slow.add('team/app', 'v1', image);
    const asked = new Promise<void>((resolve) => {
      slow.intercept = (seen, response) => {
        if (!seen.url.includes(image.layers[0]?.descriptor.digest ?? '?')) return false;
        // Headers, and then nothing.
        response.writeHead(200).write('x');
        resolve();
        return true;
      };
    });
    const first = world.images.pull(ctx, `${slow.host}/team/app:v1`);
    await asked;
    const record = await world.pull('team/app:v1');
    expect((await first).id, 'it has the layer then too').to.equal(record.id);
    expect(await world.files()).to.deep.equal(keysOf(record));
    await slow.stop();
  });

  it('works on at most N layers at a time over all pulls', async () => {
    await world.serve(
      'team/app',
      'v1',
      Array.from({ length: 7 }, (_, index) => `a${String(index)}`),
    );
    await world.serve(
      'team/app',
      'v2',
      Array.from({ length: 7 }, (_, index) => `b${String(index)}`),
    );
    await Promise.all([world.pull('team/app:v1'), world.pull('team/app:v2')]);
    expect(world.converter.runningMax).to.equal(3);
  });

  it('tells of its progress, never backwards, and of the end', async () => {
    await world.serve('team/app', 'v1', ['one', 'one', randomBytes(3_000_000).toString('base64')]);
    const seen: PullProgress[] = [];
    await world.images.pull(ctx, world.name('team/app:v1'), undefined, (progress) => seen.push(progress));
    expect(seen[0]?.phase).to.equal('resolving');
    expect(seen.at(-1)?.phase).to.equal('done');
    expect(seen.at(-1)?.bytesDone).to.equal(seen.at(-1)?.bytesTotal);
    expect(seen.length).to.be.greaterThan(5);
    seen.reduce((before, now) => {
      expect(now.bytesDone).to.be.at.least(before.bytesDone);
      expect(now.layersDone).to.be.at.least(before.layersDone);
      return now;
    });
  });

  it('leaves nothing when it is cancelled, at any moment', async () => {
    await world.serve('team/app', 'v1', ['one', 'two', 'three', 'four', 'five']);
    for (let after = 0; after < 12; after += 1) {
      const cancelled = withCancel(ctx);
      let left = after;
      world.registry.intercept = () => {
        left -= 1;
        if (left < 0) cancelled.cancel();
        return false;
      };
      const pulling = world.images.pull(cancelled, world.name('team/app:v1'));
      const message = await pulling.then(() => '', messageOf);
      if (message === '') {
        expect(after).to.be.greaterThan(5);
        break;
      }
      expect(message).to.match(/cancelled/);
      expect(await world.files()).to.deep.equal([]);
      expect(world.images.list()).to.deep.equal([]);
    }
  });

  it('leaves nothing when a layer is broken, and says which', async () => {
    const image = await world.serve('team/app', 'v1', ['one', 'two', 'three']);
    const bad = image.layers[1]?.descriptor;
    world.registry.blobs.set(bad?.digest ?? '', Buffer.alloc(bad?.sizeBytes ?? 0, 7));
    const error = await failure(world.pull('team/app:v1'));
    expect(error.class).to.equal('DataLoss');
    expect(world.observer.told).to.deep.equal(['pull DataLoss']);
    expect(error.message).to.contain(bad?.digest);
    expect(await world.files()).to.deep.equal([]);
    expect(world.registry.requests.filter((seen) => seen.url.includes(bad?.digest ?? 'x')).length).to.equal(
      2,
    );
  });

  it('keeps the word that the kubelet looks for in front', async () => {
    const image = await world.serve('team/app', 'v1', ['one']);
    world.registry.intercept = (seen, response) => {
      if (!seen.url.includes(image.layers[0]?.descriptor.digest ?? 'x')) return false;
      resetAfter(seen, response, image.layers[0]?.bytes ?? Buffer.alloc(0), 0);
      return true;
    };
    const error = await failure(world.pull('team/app:v1'));
    expect(error.message).to.match(/^RegistryUnavailable: /);
    expect(error.class).to.equal('Unavailable');
  });

  it('refuses what is no image for this node', async () => {
    const image = await world.serve('team/app', 'v1', ['one']);
    const other = { ...(JSON.parse(image.manifest.toString()) as object), layers: [] };
    world.registry.addManifest(
      'team/app',
      'short',
      Buffer.from(JSON.stringify(other)),
      mediaTypes.ociManifest,
    );
    expect((await failure(world.pull('team/app:short'))).message).to.match(/has 0 layers and a config for 1/);
    await world.serve('team/app', 'empty', []);
    expect((await failure(world.pull('team/app:empty'))).message).to.match(/nothing in it to run/);
    world.registry.blobs.set(image.configDescriptor.digest, Buffer.alloc(image.config.length, 32));
    expect((await failure(world.pull('team/app:v1'))).class).to.equal('DataLoss');
  });

  it('refuses indexes of indexes without end', async () => {
    let { bytes, descriptor } = buildIndex([]);
    for (let depth = 0; depth < 6; depth += 1) {
      world.registry.addManifest('team/app', `d${String(depth)}`, bytes, mediaTypes.ociIndex);
      const { mediaType, digest, sizeBytes } = descriptor;
      const manifests = [{ mediaType, digest, size: sizeBytes }];
      bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests }));

      descriptor = { mediaType: mediaTypes.ociIndex, digest: sha256Digest(bytes), sizeBytes: bytes.length };
    }
    expect((await failure(world.pull('team/app:d5'))).message).to.match(/more than 3 deep/);
  });

  it('says before it begins that the disk will not hold it', async () => {
    await world.restart({ freeBytesMin: 2 ** 60 });
    await world.serve('team/app', 'v1', ['one']);
    const error = await failure(world.pull('team/app:v1'));
    expect(error.class).to.equal('ResourceExhausted');
    expect(error.message).to.match(/the layers need more than .* left; make room there$/);
    expect(world.converter.conversions).to.equal(0);
  });

  it('stops with the service', async () => {
    await world.serve('team/app', 'v1', ['one']);
    world.registry.intercept = () => true;
    const pulling = failure(world.pull('team/app:v1'));
    while (world.registry.requests.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await world.images.close();
    expect((await pulling).message).to.match(/stopping/);
    expect((await failure(world.pull('team/app:v1'))).class).to.equal('Unavailable');
  });
});

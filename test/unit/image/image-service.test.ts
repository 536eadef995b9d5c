import { stat, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { failure } from '../drivers/registry/harness.js';
import { ImageWorld, keysOf } from './world.js';

const ctx = background();

describe('ImageService', () => {
  let world: ImageWorld;

  beforeEach(async () => {
    world = await ImageWorld.open();
  });

  afterEach(async () => {
    await world.close();
  });

  describe('remove', () => {
    it('by any reference removes the image with all its names and files', async () => {
      for (const by of ['tag', 'other', 'digest', 'id', 'prefix'] as const) {
        const image = await world.serve('team/app', 'v1', ['one']);
        world.registry.add('team/app', 'v2', image);
        await world.pull('team/app:v1');
        const record = await world.pull('team/app:v2');
        const references = {
          tag: world.name('team/app:v1'),
          other: world.name('team/app:v2'),
          digest: record.repoDigests[0] ?? '',
          id: record.id,
          prefix: record.id.slice(7, 20),
        };
        await Promise.all([1, 2, 3].map(async () => world.images.remove(ctx, references[by])));
        expect(world.images.list()).to.deep.equal([]);
        expect(await world.files()).to.deep.equal([]);
        for (const reference of Object.values(references))
          expect(world.images.find(reference)).to.equal(undefined);
      }
      await world.images.remove(ctx, 'never/there');
    });

    it('keeps files that another image uses', async () => {
      await world.serve('team/app', 'v1', ['base', 'one']);
      await world.serve('team/app', 'v2', ['base', 'two']);
      await world.pull('team/app:v1');
      const two = await world.pull('team/app:v2');
      await world.images.remove(ctx, world.name('team/app:v1'));
      expect(await world.files()).to.deep.equal(keysOf(two));
    });

    it('refuses pinned images', async () => {
      await world.restart({ pinnedNames: [world.name('team/app:v1')] });
      await world.serve('team/app', 'v1', ['one']);
      expect((await world.pull('team/app:v1')).pinned).to.equal(true);
      const error = await failure(world.images.remove(ctx, world.name('team/app:v1')));
      expect(error.class).to.equal('FailedPrecondition');
      expect(world.images.list().length).to.equal(1);
    });
  });

  describe('hold', () => {
    it('keeps the files of a removed image until the last container lets go, over restarts too', async () => {
      await world.serve('team/app', 'v1', ['one', 'two']);
      const record = await world.pull('team/app:v1');
      const devices = await world.images.hold(record.id, 'c1');
      expect(devices.map((device) => device.key).sort()).to.deep.equal(keysOf(record));
      expect(devices[0]?.path).to.equal(join(world.directory, 'image', 'layers', devices[0]?.key ?? ''));
      expect(devices[0]?.sizeBytes).to.equal(4);
      await world.images.hold(record.id, 'c2');
      await world.images.remove(ctx, record.id);
      expect(world.images.list()).to.deep.equal([]);
      expect(world.images.find(record.id)).to.equal(undefined);
      expect(await world.files()).to.deep.equal(keysOf(record));

      await world.restart();
      expect(world.images.list()).to.deep.equal([]);
      expect(await world.images.hold(record.id, 'c1')).to.deep.equal(devices);
      await world.images.releaseGone('c1');
      expect(await world.files()).to.deep.equal(keysOf(record));
      await world.images.hold(record.id, 'c2');
      await world.images.collectGarbage();
      expect(await world.files()).to.deep.equal(keysOf(record));
      await world.images.releaseGone('c2');
      await world.images.releaseGone('c2');
      expect(await world.files()).to.deep.equal([]);
      expect(await world.store().loadAll()).to.deep.equal([]);
      expect((await failure(world.images.hold(record.id, 'c3'))).class).to.equal('NotFound');
    });

    it('of a container that is gone after a restart counts no more', async () => {
      await world.serve('team/app', 'v1', ['one']);
      const record = await world.pull('team/app:v1');
      await world.images.hold(record.id, 'c1');
      await world.images.remove(ctx, record.id);
      await world.restart();
      await world.images.collectGarbage();
      expect(await world.files()).to.deep.equal([]);
    });

    it('sees a removed image again when it is pulled again', async () => {
      await world.serve('team/app', 'v1', ['one']);
      const record = await world.pull('team/app:v1');
      await world.images.hold(record.id, 'c1');
      await world.images.remove(ctx, record.id);
      await world.pull('team/app:v1');
      await world.images.releaseGone('c1');
      expect(world.images.find(record.id)?.repoTags).to.deep.equal(record.repoTags);
      expect(world.converter.conversions).to.equal(1);
      expect(await world.files()).to.deep.equal(keysOf(record));
    });

    it('says when a device file was lost, and a pull brings it back', async () => {
      await world.serve('team/app', 'v1', ['one', 'two']);
      const record = await world.pull('team/app:v1');
      await unlink(join(world.directory, 'image', 'layers', record.devices[0]?.key ?? ''));
      expect((await failure(world.images.hold(record.id, 'c1'))).message).to.match(/lost device files/);
      await world.pull('team/app:v1');
      expect(world.converter.conversions).to.equal(3);
      expect((await world.images.hold(record.id, 'c1')).length).to.equal(2);
    });
  });

  describe('load', () => {
    it('knows the same images again and removes what a crash left', async () => {
      await world.serve('team/app', 'v1', ['one']);
      const record = await world.pull('team/app:v1');
      const layers = join(world.directory, 'image', 'layers');
      const orphan = 'ab'.repeat(32);
      await writeFile(join(layers, orphan), 'nobody names it');
      await writeFile(join(layers, `${orphan}.1234.tmp`), 'half');
      await writeFile(join(layers, 'notes.txt'), 'not ours');
      await world.restart();
      expect(world.images.list()).to.deep.equal([record]);
      expect(await world.files()).to.deep.equal([...keysOf(record), 'notes.txt'].sort());
    });

    it('forgets an image without its files, so that it is pulled again', async () => {
      await world.serve('team/app', 'v1', ['one']);
      const record = await world.pull('team/app:v1');
      await unlink(join(world.directory, 'image', 'layers', record.devices[0]?.key ?? ''));
      await world.restart();
      expect(world.images.list()).to.deep.equal([]);
      await world.restart();
      expect(world.images.list()).to.deep.equal([]);
    });

    it('gives device files to the group that reads them, also after a crash in between', async () => {
      await world.restart({ readersGid: 54321 });
      await world.serve('team/app', 'v1', ['one']);
      const record = await world.pull('team/app:v1');
      const path = join(world.directory, 'image', 'layers', record.devices[0]?.key ?? '');
      expect((await stat(path)).gid).to.equal(54321);
      await world.restart({ readersGid: 54322 });
      expect((await stat(path)).gid).to.equal(54322);
    });
  });

  it('counts what is on the disk', async () => {
    await world.serve('team/app', 'v1', ['one', 'two']);
    await world.pull('team/app:v1');
    const usage = await world.images.usage();
    expect(usage.mountpoint).to.equal(join(world.directory, 'image'));
    expect(usage.usedBytes).to.be.greaterThan(0);
    expect(usage.inodesUsed).to.equal(3);
  });
});

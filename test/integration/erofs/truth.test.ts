/** The archive unpacked by tar and the archive converted and mounted are the same tree. */
import { lstatSync, statSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { WorkerLayerConverter } from '../../../lib/image/convert/converter.js';
import { tarToDevice } from '../../../lib/image/convert/tar-to-device.js';
import { archive, entry, header, pax } from '../../unit/wire/tar/tar-builder.js';
import { Bench, run, treeOf } from './host-mount.js';

/** A capability set as `setcap cap_net_raw+ep` stores it. */
const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex');

/** A file of zeros but for a word: 3 GB to read, next to nothing to store. */
const farBytes = 3_000_000_000;
const farOffset = 2_500_000_000;

/** A tree with one of everything, as an archive that tar unpacks. */
const everything = archive(
  entry({ name: './', type: '5', mode: 0o755, mtime: 1_600_000_000 }),
  pax([
    ['SCHILY.xattr.security.capability', capability],
    ['SCHILY.xattr.user.binary', Buffer.from([0, 1, 0x0a, 0x3d, 0xff])],
    ['mtime', '1600000001.123456789'],
  ]),
  entry({ name: 'bin/ping', mode: 0o755, uid: 1000, gid: 100_000 }, Buffer.alloc(10_000, 'binary')),
  entry({ name: 'bin/su', mode: 0o4755, mtime: 5 }, 'setuid'),
  entry({ name: 'bin/ping6', type: '1', linkName: 'bin/ping' }),
  entry({ name: 'bin/empty' }),
  entry({ name: 'tmp/', type: '5', mode: 0o1777 }),
  entry({ name: 'dev/null', type: '3', major: 1, minor: 3, mode: 0o666 }),
  entry({ name: 'dev/big', type: '4', major: 259, minor: 70_000 }),
  entry({ name: 'dev/pipe', type: '6' }),
  entry({ name: 'lib', type: '2', linkName: 'usr/lib' }),
  pax([['linkpath', 'long/'.repeat(500)]]),
  entry({ name: 'longlink', type: '2' }),
  pax([['path', `deep/${'directory-with-a-long-name/'.repeat(12)}file`]]),
  entry({ name: 'x' }, 'deep'),
  entry({ name: 'nicht-äscii-\xff' }, 'bytes'),
  ...Array.from({ length: 400 }, (_, index) =>
    entry({ name: `many/entry-number-${String(index)}`, mtime: index }, 'm'),
  ),
  header({ name: 'last', mtime: 2 ** 31 }),
);

describe('a converted layer on the host', function () {
  this.timeout(120_000);

  const formats: Readonly<Record<string, readonly string[]>> = {
    pax: ['--format=pax', '--xattrs', '--xattrs-include=*'],
    gnu: ['--format=gnu'],
    'gnu sparse': ['--format=gnu', '--sparse'],
    'pax sparse 0.0': ['--format=pax', '--sparse', '--sparse-version=0.0', '--xattrs', '--xattrs-include=*'],
    'pax sparse 0.1': ['--format=pax', '--sparse', '--sparse-version=0.1'],
    'pax sparse 1.0': ['--format=pax', '--sparse', '--sparse-version=1.0', '--xattrs', '--xattrs-include=*'],
    ustar: ['--format=ustar', '--exclude=longlink', '--exclude=deep'],
    v7: ['--format=v7', '--exclude=longlink', '--exclude=deep', '--exclude=dev'],
  };
  for (const [format, options] of Object.entries(formats))
    it(`is what tar unpacks: ${format}`, async () => {
      await Bench.run(async (bench) => {
        const source = await bench.makeDirectory('source');
        await writeFile(bench.path('everything.tar'), everything);
        run('tar', '--xattrs', '--xattrs-include=*', '-xpf', bench.path('everything.tar'), '-C', source);
        const hasFar = format.includes('sparse');
        if (hasFar) makeSparse(join(source, 'sparse-far'), farBytes, farOffset);
        for (let part = 0; part < 60; part += 1)
          makeSparse(join(source, 'sparse-many'), 8_000_000, part * 120_000);
        const packed = bench.path('packed.tar');
        run('tar', '--numeric-owner', ...options, '-C', source, '-cf', packed, '.');

        const truth = await bench.makeDirectory('truth');
        run('tar', '--xattrs', '--xattrs-include=*', '--numeric-owner', '-xpf', packed, '-C', truth);
        tarToDevice(packed, bench.path('device'));
        bench.check(bench.path('device'));
        const mounted = await bench.mountDevice(bench.path('device'), 'mnt');
        if (hasFar) {
          const far = join(mounted, 'sparse-far');
          const there = ['iflag=skip_bytes,count_bytes', `skip=${String(farOffset - 2)}`, 'count=8'];
          expect(run('dd', `if=${far}`, ...there, 'status=none').toString('latin1')).equal('\0\0data\0\0');
          // A pmem device costs the guest memory for each page: holes must not be in it.
          expect(statSync(bench.path('device')).size).lessThan(32 * 1024 * 1024);
        }
        compare(truth, mounted);
      });
    });

  it('hides and merges under overlayfs as the image-spec says', async () => {
    await Bench.run(async (bench) => {
      const layers = [
        archive(
          entry({ name: 'keep' }, 'low'),
          entry({ name: 'gone' }, 'x'),
          entry({ name: 'd/low' }, 'x'),
          entry({ name: 'o/low' }, 'x'),
        ),
        archive(
          entry({ name: '.wh.gone' }),
          entry({ name: 'd/high' }, 'x'),
          entry({ name: 'o/.wh..wh..opq' }),
          entry({ name: 'o/high' }, 'x'),
        ),
      ];
      const mounts: string[] = [];
      for (const [index, bytes] of layers.entries()) {
        await writeFile(bench.path('in.tar'), bytes);
        tarToDevice(bench.path('in.tar'), bench.path(`device-${String(index)}`));
        mounts.unshift(
          await bench.mountDevice(bench.path(`device-${String(index)}`), `mnt-${String(index)}`),
        );
      }
      const merged = await bench.mount('merged', 'overlay', `ro,lowerdir=${mounts.join(':')}`, 'overlay');
      const seen = run('find', merged, '-mindepth', '1', '-printf', '%P\n')
        .toString()
        .trim()
        .split('\n')
        .sort();
      expect(seen).deep.equal(['d', 'd/high', 'd/low', 'keep', 'o', 'o/high']);

      // The same two layers as directories of one device.
      const converter = new WorkerLayerConverter({ threadsMax: 1 });
      try {
        const files = [bench.path('device-0'), bench.path('device-1')];
        await converter.join(background(), { files, destinationPath: bench.path('joined') });
      } finally {
        await converter.close();
      }
      bench.check(bench.path('joined'));
      const joined = await bench.mountDevice(bench.path('joined'), 'mnt-joined');
      const lower = `ro,lowerdir=${join(joined, '1')}:${join(joined, '0')}`;
      const again = await bench.mount('merged-joined', 'overlay', lower, 'overlay');
      expect(treeOf(again)).deep.equal(treeOf(merged));
    });
  });
});

/** Writes a few bytes into a file of this size, with holes around them. */
function makeSparse(path: string, size: number, offset: number): void {
  run('truncate', '-s', String(size), path);
  run('sh', '-c', `printf data | dd of=${path} bs=1 seek=${String(offset)} conv=notrunc status=none`);
}

function compare(truth: string, mounted: string): void {
  const trees = [mounted, truth].map((root) => treeOf(root, 'sparse-far'));
  expect(trees[0]?.length).greaterThan(400);
  expect(trees[0]).deep.equal(trees[1]);
  const names = run('find', truth, '-printf', '%P\n').toString('latin1').trimEnd().split('\n');
  for (const name of names) {
    const [a, b] = [truth, mounted].map((root) => {
      const facts = lstatSync(Buffer.from(`${root}/${name}`, 'latin1'), { bigint: true });
      const links = facts.isDirectory() ? 0n : facts.nlink;
      return {
        mode: facts.mode,
        uid: facts.uid,
        gid: facts.gid,
        links,
        rdev: facts.rdev,
        mtimeNs: facts.mtimeNs,
      };
    });
    expect(b, name).deep.equal(a);
  }
}

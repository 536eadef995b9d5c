import { expect } from 'chai';
import fc from 'fast-check';

import { HerkosError } from '../../../../lib/base/errors.js';
import { TarParser } from '../../../../lib/wire/tar/parser.js';
import { collect } from './collect.js';
import { archive, entry, header, pax, padded, sealed } from './tar-builder.js';

const sample = archive(
  entry({ name: 'dir/', type: '5', mode: 0o755, uid: 7, gid: 8, mtime: 99 }),
  entry({ name: 'dir/file', mode: 0o4755 }, 'content'),
  pax([
    ['path', `dir/${'long'.repeat(40)}`],
    ['mtime', '12.5'],
    ['SCHILY.xattr.security.capability', Buffer.from([1, 0, 0x0a, 0xff, 0x3d, 0x20])],
  ]),
  entry({ name: 'short' }, Buffer.alloc(1500, 'x')),
  entry({ name: 'dir/link', type: '2', linkName: '../elsewhere' }),
  entry({ name: 'dir/hard', type: '1', linkName: 'dir/file' }),
  entry({ name: 'null', type: '3', major: 1, minor: 3 }),
);

function isBroken(run: () => unknown): void {
  try {
    run();
  } catch (error) {
    expect(error).instanceOf(HerkosError);
    expect(error).property('class', 'DataLoss');
    return;
  }
  expect.fail('the archive was taken');
}

describe('tar parser', () => {
  it('reads ustar, pax values and binary attributes', () => {
    const found = collect(sample).map(({ entry: each, content }) => ({ ...each, text: content.toString() }));
    expect(found.map(({ type }) => type)).deep.equal([
      'directory',
      'file',
      'file',
      'symlink',
      'link',
      'char',
    ]);
    expect(found[0]).deep.include({ path: 'dir/', mode: 0o755, uid: 7, gid: 8, mtimeSec: 99 });
    expect(found[1]).include({ text: 'content', mode: 0o4755 });
    expect(found[2]).include({
      path: `dir/${'long'.repeat(40)}`,
      mtimeSec: 12,
      mtimeNsec: 500_000_000,
      size: 1500,
    });
    expect(found[2]?.xattrs).deep.equal([
      { name: 'security.capability', value: Buffer.from([1, 0, 0x0a, 0xff, 0x3d, 0x20]) },
    ]);
    expect(found[3]).include({ linkPath: '../elsewhere' });
    expect(found[5]).include({ deviceMajor: 1, deviceMinor: 3 });
    // What one extended header said must not leak into the next entry.
    expect(found[3]?.xattrs).deep.equal([]);
  });

  it('gives the same whatever the pieces it comes in', () => {
    const whole = collect(sample);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 1300 }), { minLength: 1, maxLength: 12 }), (sizes) => {
        expect(collect(sample, sizes)).deep.equal(whole);
      }),
      { numRuns: 60 },
    );
  });

  it('joins the ustar prefix and reads GNU long names and base-256 numbers', () => {
    const long = 'n'.repeat(300);
    const found = collect(
      archive(
        entry({ name: 'file', prefix: 'some/where' }),
        entry({ name: '././@LongLink', type: 'L', magic: 'gnu' }, `${long}\0`),
        entry({ name: '././@LongLink', type: 'K', magic: 'gnu' }, `${long}target\0`),
        header({
          name: 'cut',
          type: '2',
          magic: 'gnu',
          patch: (block) => {
            block.write('80000000ee6b2801', 108, 'hex'); // uid 4,000,000,001
            block.write('ffffffffffffffffffffffff', 136, 'hex'); // mtime -1
          },
        }),
      ),
    );
    expect(found[0]?.entry.path).equal('some/where/file');
    expect(found[1]?.entry).include({
      path: long,
      linkPath: `${long}target`,
      uid: 4_000_000_001,
      mtimeSec: -1,
    });
  });

  it('applies global headers until they are taken back', () => {
    const found = collect(
      archive(
        pax([['mtime', '77']], 'g'),
        entry({ name: 'a' }),
        pax([['mtime', '']]),
        entry({ name: 'b', mtime: 5 }),
        entry({ name: 'c', mtime: 5 }),
      ),
    );
    expect(found.map(({ entry: each }) => each.mtimeSec)).deep.equal([77, 5, 77]);
  });

  it('reads a leading sparse map whose entry states its size in an extended header', () => {
    const count = 200;
    const map = Array.from({ length: count }, (_, index) => `${String(index * 1000)}\n1\n`).join('');
    const body = Buffer.concat([padded(Buffer.from(`${String(count)}\n${map}`)), Buffer.alloc(count, 'x')]);
    const records = [
      ['GNU.sparse.major', '1'],
      ['GNU.sparse.minor', '0'],
      ['GNU.sparse.realsize', '200000'],
      ['size', String(body.length)],
    ] as const;
    // A size of 8 GiB has no room in the header; Go writes 0 there.
    const [found] = collect(archive(pax(records), entry({ name: 'a', size: 0 }, body)));
    expect(found?.content.length).equal(200_000);
    expect(found?.content.filter((byte) => byte === 0x78).length).equal(count);
    const lies = records.map(([key, value]) => [key, key === 'size' ? '1024' : value] as const);
    isBroken(() => collect(archive(pax(lies), entry({ name: 'a', size: body.length }, body))));
  });

  it('keeps negative times with fractions', () => {
    const [found] = collect(archive(pax([['mtime', '-1.25']]), entry({ name: 'a' })));
    expect(found?.entry).include({ mtimeSec: -2, mtimeNsec: 750_000_000 });
  });

  describe('refuses', () => {
    const whole = collect(sample);
    const cases: Readonly<Record<string, Buffer>> = {
      'a wrong checksum': Buffer.concat([entry({ name: 'a' }).fill('9', 0, 1), Buffer.alloc(1024)]),
      'digits that are none': archive(
        header({ name: 'a', patch: (block) => block.write('12x4', 124, 'latin1') }),
      ),
      'a size beyond what numbers hold': archive(
        header({ name: 'a', patch: (block) => block.write('80ffffffffffffffffffffff', 124, 'hex') }),
      ),
      'a negative size': archive(
        header({ name: 'a', patch: (block) => block.write('ffffffffffffffffffffffff', 124, 'hex') }),
      ),
      'an unknown type': archive(entry({ name: 'a', type: 'Z' })),
      'an extended header that is too large': archive(header({ name: 'a', type: 'x', size: 2 ** 21 })),
      'extended headers that are too large together': archive(
        ...Array.from({ length: 3 }, () => pax([['path', 'p'.repeat(400_000)]])),
        entry({ name: 'a' }),
      ),
      'too many global records': archive(
        pax(
          Array.from({ length: 65 }, (_, index) => [`SCHILY.xattr.user.${String(index)}`, ''] as const),
          'g',
        ),
      ),
      'global records that are too large': archive(
        pax([['SCHILY.xattr.user.a', Buffer.alloc(65_537)]], 'g'),
        entry({ name: 'a' }),
      ),
      'a record that reaches beyond its header': archive(entry({ name: 'p', type: 'x' }, '99 path=a\n')),
      'a record without a newline': archive(entry({ name: 'p', type: 'x' }, '9 path=ab')),
      'a record without a length': archive(entry({ name: 'p', type: 'x' }, 'path=ab\n')),
      'a NUL in a path': archive(pax([['path', 'a\0b']]), entry({ name: 'a' })),
      'a path that is too long': archive(pax([['path', 'a/'.repeat(3000)]]), entry({ name: 'a' })),
      'an owner that means nobody': archive(pax([['uid', '4294967295']]), entry({ name: 'a' })),
      'data after one end block': Buffer.concat([Buffer.alloc(512), entry({ name: 'a' })]),
      'an extended header without an entry': pax([['path', 'a']]),
    };
    for (const [what, bytes] of Object.entries(cases))
      it(what, () => {
        isBroken(() => collect(bytes));
      });

    it('every archive that is cut off inside an entry', () => {
      const ends = new Set([0, 512, 1536]);
      fc.assert(
        fc.property(fc.integer({ min: 1, max: sample.length - 1025 }), (length) => {
          fc.pre(!ends.has(length));
          let count = -1;
          try {
            count = collect(sample.subarray(0, length)).length;
          } catch (error) {
            expect(error).property('class', 'DataLoss');
          }
          // Only a cut between two entries can go unseen here (the digest of the layer sees it).
          if (count !== -1) expect(length % 512).equal(0);
          expect(count).lessThan(whole.length);
        }),
      );
    });
  });

  it('survives any bytes and any change to a good archive', () => {
    // Not collected: a sparse file of a few bytes may say that it is of terabytes.
    const run = (bytes: Buffer): void => {
      let size = 0;
      const parser = new TarParser({
        entry: (next) => {
          ({ size } = next);
        },
        data: (chunk, position) => {
          expect(position + chunk.length).most(size);
        },
        entryEnd: () => undefined,
      });
      try {
        parser.push(bytes);
        parser.finish();
      } catch (error) {
        expect(error).instanceOf(HerkosError);
      }
    };
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 3000 }), (bytes) => {
        run(Buffer.from(bytes));
      }),
    );
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: sample.length - 1 }),
        fc.integer({ min: 0, max: 255 }),
        fc.boolean(),
        (at, byte, seal) => {
          const changed = Buffer.from(sample);
          changed[at] = byte;
          // With a right checksum the change reaches the code behind it.
          const block = at - (at % 512);
          if (seal && changed[block + 257] === 0x75) sealed(changed.subarray(block, block + 512));
          run(changed);
        },
      ),
      { numRuns: 2000 },
    );
  });
});

describe('tar parser on sparse files', () => {
  const parts = [
    { offset: 1000, data: 'first' },
    { offset: 5000, data: 'second' },
  ];
  const stored = Buffer.from('firstsecond');
  const expected = Buffer.alloc(9000);
  for (const { offset, data } of parts) expected.write(data, offset);

  const spellings: Readonly<Record<string, Buffer>> = {
    'old GNU': entry(
      {
        name: 'f',
        type: 'S',
        magic: 'gnu',
        patch: (block) => {
          parts.forEach(({ offset, data }, index) => {
            block.write(`${offset.toString(8).padStart(11, '0')}\0`, 386 + index * 24, 'latin1');
            block.write(`${data.length.toString(8).padStart(11, '0')}\0`, 398 + index * 24, 'latin1');
          });
          block.write(`${(9000).toString(8).padStart(11, '0')}\0`, 483, 'latin1');
        },
      },
      stored,
    ),
    'PAX 0.0': Buffer.concat([
      pax([
        ['GNU.sparse.size', '9000'],
        ['GNU.sparse.numblocks', '2'],
        ['GNU.sparse.offset', '1000'],
        ['GNU.sparse.numbytes', '5'],
        ['GNU.sparse.offset', '5000'],
        ['GNU.sparse.numbytes', '6'],
      ]),
      entry({ name: 'f' }, stored),
    ]),
    'PAX 0.1': Buffer.concat([
      pax([
        ['GNU.sparse.size', '9000'],
        ['GNU.sparse.numblocks', '2'],
        ['GNU.sparse.map', '1000,5,5000,6'],
      ]),
      entry({ name: 'f' }, stored),
    ]),
    'PAX 1.0': Buffer.concat([
      pax([
        ['GNU.sparse.major', '1'],
        ['GNU.sparse.minor', '0'],
        ['GNU.sparse.name', 'f'],
        ['GNU.sparse.realsize', '9000'],
      ]),
      entry(
        { name: 'GNUSparseFile.0/f' },
        Buffer.concat([padded(Buffer.from('2\n1000\n5\n5000\n6\n')), stored]),
      ),
    ]),
  };
  for (const [format, bytes] of Object.entries(spellings))
    it(`reads ${format} and goes on behind it`, () => {
      const found = collect(archive(bytes, entry({ name: 'next' }, 'n')), [700, 13, 512]);
      expect(found.map(({ entry: each }) => each.path)).deep.equal(['f', 'next']);
      expect(found[0]?.content.equals(expected)).equal(true);
      expect(found[0]?.entry.segments?.length).equal(2);
    });

  const lying: Readonly<Record<string, string>> = {
    'out of order': '5000,6,1000,5',
    overlapping: '1000,8,1004,3',
    'beyond the end': '1000,5,8999,6',
    'more than the data': '1000,5,5000,7',
    'less than the data': '1000,5',
    'not numbers': '1000,5,x,6',
    odd: '1000,5,5000',
    'huge numbers': '1000,5,99999999999999999999,6',
  };
  for (const [what, map] of Object.entries(lying))
    it(`refuses a map that is ${what}`, () => {
      const bytes = Buffer.concat([
        pax([
          ['GNU.sparse.size', '9000'],
          ['GNU.sparse.map', map],
        ]),
        entry({ name: 'f' }, stored),
      ]);
      isBroken(() => collect(archive(bytes)));
    });
});

import { expect } from 'chai';
import fc from 'fast-check';

import { HerkosError } from '../../../../lib/base/errors.js';
import { fileTypes } from '../../../../lib/wire/erofs/format.js';
import { ErofsNode, defaultDirectory } from '../../../../lib/wire/erofs/node.js';
import type { Xattr } from '../../../../lib/wire/erofs/node.js';
import type { ErofsInode, ErofsReader } from '../../../../lib/wire/erofs/reader.js';
import { ErofsWriter } from '../../../../lib/wire/erofs/writer.js';
import { MemoryImage, readerOf, writeImage } from './memory-image.js';

/** What a test wants in an image, and what it gets back. */
interface Wanted {
  readonly type: 'file' | 'sparse' | 'symlink' | 'char' | 'fifo' | 'directory';
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly xattrs: readonly { readonly name: string; readonly value: string }[];
  readonly content: string;
  readonly children: Readonly<Record<string, Wanted>>;
}

const nameArbitrary = fc
  .uint8Array({ minLength: 1, maxLength: 40 })
  .map((bytes) => Buffer.from(bytes).toString('latin1').replaceAll(/[/\0]/g, '_'))
  .filter((name) => name !== '.' && name !== '..');

const attributes = {
  mode: fc.integer({ min: 0, max: 0o7777 }),
  uid: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff_fffe })),
  gid: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff_fffe })),
  mtimeSec: fc.oneof(fc.constant(1_700_000_000), fc.integer({ min: -1_000_000, max: 2 ** 40 })),
  mtimeNsec: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 999_999_999 })),
  xattrs: fc.uniqueArray(
    fc.record({
      name: fc.constantFrom(
        'user.a',
        'user.long.name',
        'trusted.t',
        'security.capability',
        'system.posix_acl_access',
        'system.posix_acl_default',
      ),
      value: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
    }),
    { selector: ({ name }) => name, maxLength: 4 },
  ),
};

const contentArbitrary = fc.oneof(
  fc.constant(''),
  fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
  fc.integer({ min: 4000, max: 9000 }).map((length) => 'z'.repeat(length)),
);

const { tree } = fc.letrec<{ tree: Wanted; node: Wanted }>((tie) => ({
  tree: fc.record({
    ...attributes,
    type: fc.constant('directory' as const),
    content: fc.constant(''),
    children: fc.dictionary(nameArbitrary, tie('node'), { maxKeys: 12, noNullPrototype: true }),
  }),
  node: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.record({
      ...attributes,
      type: fc.constantFrom('file' as const, 'sparse' as const, 'char' as const, 'fifo' as const),
      content: contentArbitrary,
      children: fc.constant({}),
    }),
    fc.record({
      ...attributes,
      type: fc.constant('symlink' as const),
      content: fc.integer({ min: 1, max: 4095 }).map((length) => 'l'.repeat(length)),
      children: fc.constant({}),
    }),
    tie('tree'),
  ),
}));

const typeBits = {
  file: fileTypes.regular,
  sparse: fileTypes.regular,
  symlink: fileTypes.symlink,
  char: fileTypes.char,
  fifo: fileTypes.fifo,
  directory: fileTypes.directory,
} as const;

function build(wanted: Wanted, writer: ErofsWriter): ErofsNode {
  const node = new ErofsNode({ ...wanted, mode: typeBits[wanted.type] | wanted.mode });
  const xattrs: Xattr[] = wanted.xattrs.map(({ name, value }) => ({
    name,
    value: Buffer.from(value, 'latin1'),
  }));
  if (xattrs.length > 0) node.xattrs = xattrs;
  const content = Buffer.from(wanted.content, 'latin1');
  if (wanted.type === 'file' || wanted.type === 'sparse') {
    node.size = content.length;
    const data = writer.beginData(node, wanted.type === 'sparse');
    data.write(content, 0);
    data.end();
  }
  if (wanted.type === 'symlink') {
    node.target = wanted.content;
    node.size = content.length;
  }
  if (wanted.type === 'char') node.device = content.length;
  for (const [name, child] of Object.entries(wanted.children)) node.children?.set(name, build(child, writer));
  return node;
}

/** What there should be, in the words of `seen`. */
function expectation(wanted: Wanted): unknown {
  const names = Object.keys(wanted.children).sort((a, b) => (a < b ? -1 : 1));
  const hasContent = wanted.type === 'file' || wanted.type === 'sparse' || wanted.type === 'symlink';
  return {
    mode: typeBits[wanted.type] | wanted.mode,
    uid: wanted.uid,
    gid: wanted.gid,
    time: [wanted.mtimeSec, wanted.mtimeNsec],
    xattrs: wanted.xattrs,
    content: hasContent ? wanted.content : '',
    device: wanted.type === 'char' ? wanted.content.length : 0,
    children: names.map((name) => [
      name,
      wanted.children[name] === undefined ? 0 : expectation(wanted.children[name]),
    ]),
  };
}

async function seen(reader: ErofsReader, inode: ErofsInode): Promise<unknown> {
  const type = inode.mode & fileTypes.mask;
  const xattrs = await reader.xattrs(inode);
  const children: unknown[] = [];
  if (type === fileTypes.directory)
    for await (const { name, nid } of reader.directory(inode)) {
      // A look-up by halves must find what the list has.
      expect((await reader.lookup(inode, name))?.nid).equal(nid);
      children.push([name, await seen(reader, await reader.inode(nid))]);
    }
  const hasContent = type === fileTypes.regular || type === fileTypes.symlink;
  return {
    mode: inode.mode,
    uid: inode.uid,
    gid: inode.gid,
    time: [inode.mtimeSec, inode.mtimeNsec],
    xattrs: xattrs.map(({ name, value }) => ({ name, value: value.toString('latin1') })),
    content: hasContent ? (await reader.read(inode, 0, inode.size)).toString('latin1') : '',
    device: type === fileTypes.char ? inode.device : 0,
    children,
  };
}

function write(wanted: Wanted): Buffer {
  const image = new MemoryImage();
  const writer = new ErofsWriter(image.writeAt);
  writer.finish(build(wanted, writer), Buffer.alloc(16, 3));
  return image.bytes;
}

describe('EROFS writer and reader', () => {
  it('give back any tree', async () => {
    await fc.assert(
      fc.asyncProperty(tree, async (wanted) => {
        const bytes = write(wanted);
        expect(bytes.length % 4096).equal(0);
        expect(write(wanted).equals(bytes)).equal(true);
        const reader = await readerOf(bytes);
        expect(await seen(reader, await reader.inode(reader.rootNid))).deep.equal(expectation(wanted));
      }),
      { numRuns: 60 },
    );
  });

  it('sort large directories so that every name is found', async () => {
    const root = defaultDirectory();
    const names = Array.from(
      { length: 5000 },
      (_, index) => `${String((index * 7919) % 5000)}${'é'.repeat(index % 9)}`,
    );
    for (const name of names)
      root.children?.set(
        name,
        new ErofsNode({ mode: fileTypes.fifo, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 }),
      );
    const reader = await writeImage(root).reader();
    const inode = await reader.inode(reader.rootNid);
    for (const name of names.slice(0, 400)) expect(await reader.lookup(inode, name)).not.equal(undefined);
    expect(await reader.lookup(inode, 'missing')).equal(undefined);
    expect(await reader.lookup(inode, '\x01')).equal(undefined);
    expect(await reader.lookup(inode, 'ÿ')).equal(undefined);
    const listed: string[] = [];
    for await (const { name } of reader.directory(inode)) listed.push(name);
    expect(listed).deep.equal([...new Set(names)].sort((a, b) => (a < b ? -1 : 1)));
  });

  it('count hard links once and links of directories', async () => {
    const root = defaultDirectory();
    const sub = defaultDirectory();
    const file = new ErofsNode({ mode: fileTypes.regular, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 });
    root.children?.set('a', file).set('sub', sub);
    sub.children?.set('b', file);
    const reader = await writeImage(root).reader();
    const rootInode = await reader.inode(reader.rootNid);
    const a = await reader.lookup(rootInode, 'a');
    const subInode = await reader.lookup(rootInode, 'sub');
    expect(rootInode.links).equal(3);
    expect(a?.links).equal(2);
    expect(subInode === undefined ? undefined : (await reader.lookup(subInode, 'b'))?.nid).equal(a?.nid);
  });

  it('leave holes out of the image', async () => {
    const root = defaultDirectory();
    const file = new ErofsNode({ mode: fileTypes.regular, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 });
    file.size = 2 ** 40;
    root.children?.set('f', file);
    const image = writeImage(root, (writer) => {
      const data = writer.beginData(file, true);
      data.write(Buffer.from('far away'), 2 ** 39 + 5);
      data.end();
    });
    const reader = await image.reader();
    const inode = await reader.lookup(await reader.inode(reader.rootNid), 'f');
    if (inode === undefined) return expect.fail('the file is missing');
    expect(inode.size).equal(2 ** 40);
    expect((await reader.read(inode, 2 ** 39, 20)).toString('latin1')).equal(
      `${'\0'.repeat(5)}far away${'\0'.repeat(7)}`,
    );
    // One chunk of 2^26 bytes and its map, of a file of 2^40.
    expect(image.bytes.length).lessThan(2 ** 26 + 2 ** 20);
  });

  it('never fail in another way on a damaged image', async () => {
    const bytes = write({
      type: 'directory',
      mode: 0o755,
      uid: 0,
      gid: 0,
      mtimeSec: 1,
      mtimeNsec: 0,
      xattrs: [{ name: 'user.x', value: 'value' }],
      content: '',
      children: Object.fromEntries(
        (['file', 'sparse', 'symlink', 'char', 'fifo'] as const).map((type) => [
          type,
          {
            type,
            mode: 0,
            uid: 70_000,
            gid: 0,
            mtimeSec: 2,
            mtimeNsec: 0,
            xattrs: [],
            content: 'x'.repeat(5000),
            children: {},
          },
        ]),
      ),
    });
    const metaStart = (bytes.readUInt32LE(1024 + 40) - 2) * 4096;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 4096 * 3 }), fc.integer({ min: 0, max: 255 })), {
          minLength: 1,
          maxLength: 6,
        }),
        async (changes) => {
          const damaged = Buffer.from(bytes);
          for (const [at, byte] of changes)
            if (metaStart + at < damaged.length) damaged[metaStart + at] = byte;
          try {
            const reader = await readerOf(damaged);
            const root = await reader.inode(reader.rootNid);
            for await (const { name, nid } of reader.directory(root)) {
              const inode = await reader.inode(nid);
              await reader.lookup(root, name);
              await reader.xattrs(inode);
              await reader.read(inode, 0, Math.min(inode.size, 10_000));
            }
          } catch (error) {
            expect(error).instanceOf(HerkosError);
          }
        },
      ),
      { numRuns: 1500 },
    );
  });
});

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect } from 'chai';

import { tarToDevice } from '../../../../lib/image/convert/tar-to-device.js';
import { archive, entry, pax } from '../../wire/tar/tar-builder.js';
import { inScratch, listing } from './scratch.js';
import { tableOf } from './tree.js';
import type { Row } from './tree.js';

const opaque = { 'trusted.overlay.opaque': 'y' };

async function tableFrom(...entries: readonly Buffer[]): Promise<Record<string, Row>> {
  return inScratch(async (directory) => {
    await writeFile(join(directory, 'in.tar'), archive(...entries));
    tarToDevice(join(directory, 'in.tar'), join(directory, 'out'));
    return tableOf(join(directory, 'out'));
  });
}

const dir = (name: string, mode = 0o755): Buffer => entry({ name, type: '5', mode });
const file = (name: string, content = name): Buffer => entry({ name }, content);
const symlink = (name: string, linkName: string): Buffer => entry({ name, type: '2', linkName });
const hard = (name: string, linkName: string): Buffer => entry({ name, type: '1', linkName });

describe('rules of a layer', () => {
  it('normalises names and makes missing parents', async () => {
    const table = await tableFrom(
      file('./a//b/./c', 'text'),
      entry({ name: './', type: '5', mode: 0o700, uid: 3 }),
    );
    expect(Object.keys(table)).deep.equal(['', 'a', 'a/b', 'a/b/c']);
    expect(table['']).include({ mode: 0o700, owner: '3:0' });
    expect(table['a']).include({ type: 'directory', mode: 0o755, owner: '0:0' });
    expect(table['a/b/c']?.content).equal('text');
  });

  it('lets a later entry win', async () => {
    const table = await tableFrom(
      file('x', 'old'),
      file('x', 'new'),
      dir('d'),
      file('d/kept'),
      dir('d', 0o711),
      file('gone/below'),
      file('gone', 'a file now'),
      file('up', 'a file'),
      dir('up'),
      file('up/in'),
    );
    expect(table['x']?.content).equal('new');
    expect(table['d']?.mode).equal(0o711);
    expect(table['d/kept']?.content).equal('d/kept');
    expect(table['gone']).include({ type: 'regular', content: 'a file now' });
    expect(Object.keys(table)).not.include('gone/below');
    expect(table['up/in']?.content).equal('up/in');
  });

  it('turns whiteouts into what overlayfs understands', async () => {
    const table = await tableFrom(
      file('d/.wh.removed', ''),
      file('e/.wh..wh..opq', ''),
      file('e/own'),
      // Bookkeeping of old tools says nothing about the image.
      file('.wh..wh.aufs', ''),
    );
    expect(table['d/removed']).include({ type: 'char', content: '0:0', mode: 0 });
    expect(table['d']?.xattrs).deep.equal({});
    expect(table['e']?.xattrs).deep.equal(opaque);
    expect(Object.keys(table)).deep.equal(['', 'd', 'd/removed', 'e', 'e/own']);
  });

  it('lets whiteouts hide lower layers only', async () => {
    const table = await tableFrom(
      file('.wh.before', ''),
      file('before', 'mine'),
      file('after', 'mine'),
      file('.wh.after', ''),
      file('.wh.dir', ''),
      dir('dir', 0o700),
      file('.wh.deep', ''),
      file('deep/in', ''),
      file('late/in', ''),
      file('.wh.late', ''),
      file('.wh..wh..opq', ''),
    );
    expect(table['before']?.content).equal('mine');
    expect(table['after']?.content).equal('mine');
    expect(table['dir']).deep.include({ mode: 0o700, xattrs: opaque });
    expect(table['deep']?.xattrs).deep.equal(opaque);
    expect(table['late']?.xattrs).deep.equal(opaque);
    expect(table['']?.xattrs).deep.equal(opaque);
  });

  it('keeps opacity and own attributes when the directory comes later', async () => {
    const table = await tableFrom(
      file('d/.wh..wh..opq', ''),
      pax([['SCHILY.xattr.user.mine', 'value']]),
      dir('d', 0o750),
    );
    expect(table['d']).deep.include({ mode: 0o750, xattrs: { 'user.mine': 'value', ...opaque } });
  });

  it('drops attributes by which a layer could steer overlayfs', async () => {
    const table = await tableFrom(
      pax([
        ['SCHILY.xattr.trusted.overlay.redirect', '/somewhere'],
        ['SCHILY.xattr.user.overlay.opaque', 'y'],
        ['SCHILY.xattr.trusted.other', 'kept'],
        ['SCHILY.xattr.unknown.prefix', 'x'],
      ]),
      dir('d'),
    );
    expect(table['d']?.xattrs).deep.equal({ 'trusted.other': 'kept' });
  });

  it('shares the inode of hard links, also after the first name was replaced', async () => {
    const table = await tableFrom(
      file('a', 'shared'),
      hard('b', './a'),
      hard('sub/c', '/a'),
      symlink('s', 'target'),
      hard('t', 's'),
      file('a', 'new'),
    );
    expect(table['b']).include({ content: 'shared', links: 2 });
    expect(table['sub/c']).include({ content: 'shared', links: 2 });
    expect(table['a']).include({ content: 'new', links: 1 });
    expect(table['t']).include({ type: 'symlink', content: 'target', links: 2 });
  });

  it("follows the layer's own links inside the image, as unpacking runtimes do", async () => {
    const table = await tableFrom(
      symlink('lib', 'usr/lib'),
      file('lib/x'),
      symlink('usr/up', '../opt/./deep'),
      file('usr/up/y'),
      symlink('var/run', '/run'),
      file('var/run/z'),
      hard('h', 'lib/x'),
    );
    expect(table['lib']?.type).equal('symlink');
    expect(table['usr/lib/x']).include({ content: 'lib/x', links: 2 });
    expect(table['opt/deep/y']?.type).equal('regular');
    expect(table['run/z']?.type).equal('regular');
  });

  it('keeps links that point out of the tree as they are: they are text', async () => {
    const table = await tableFrom(symlink('out', '../../../etc/passwd'), symlink('abs', '/etc/passwd'));
    expect(table['out']?.content).equal('../../../etc/passwd');
    expect(table['abs']?.content).equal('/etc/passwd');
  });

  describe('refuses', () => {
    const cases: Readonly<Record<string, readonly [RegExp, ...Buffer[]]>> = {
      "a '..' component": [/"a\/\.\.\/\.\.\/x".*'\.\.'/, file('a/../../x')],
      'an absolute name': [/"\/etc\/passwd".*absolute/, file('/etc/passwd')],
      'a component that is too long': [
        /component of more than 255/,
        pax([['path', 'n'.repeat(256)]]),
        file('n'),
      ],
      'an entry through a link out of the image': [
        /out of the image/,
        symlink('a', '../../etc'),
        file('a/passwd'),
      ],
      'an entry through a cycle of links': [/cycle/, symlink('a', 'b'), symlink('b', 'a'), file('a/x')],
      'an entry through links that grow': [
        /too long/,
        ...Array.from({ length: 12 }, (_, index) =>
          Buffer.concat([
            pax([['linkpath', `l${String(index + 1)}/${'../x/'.repeat(300)}`]]),
            symlink(`l${String(index)}`, ''),
          ]),
        ),
        dir('l12'),
        dir('x'),
        file('l0/file'),
      ],
      'attributes that are too large together': [
        /bytes of extended attributes/,
        pax(
          Array.from(
            { length: 5 },
            (_, index) => [`SCHILY.xattr.user.${String(index)}`, Buffer.alloc(60_000, 1)] as const,
          ),
        ),
        file('x'),
      ],
      'a directory below a file': [/not a directory/, file('a'), file('a/b')],
      'a hard link to nothing': [/does not have/, hard('h', 'missing')],
      'a hard link with dots': [/'\.\.'/, hard('h', '../../etc/shadow')],
      'a hard link to a directory': [/directory/, dir('d'), hard('h', 'd')],
      'a hard link to a removed file': [/does not have/, file('.wh.x', ''), hard('h', 'x')],
      'a whiteout of nothing': [/whiteout of nothing/, file('.wh.', '')],
      "a whiteout of '..'": [/whiteout of nothing/, file('d/.wh...', '')],
      'entries below a whiteout': [/below a whiteout/, file('.wh.d/x', '')],
      'a root that is a file': [/root/, file('.')],
      'a link to nothing': [/symbolic link to nothing/, symlink('s', '')],
      'a device that cannot be': [/number/, entry({ name: 'd', type: '3', major: 5000 })],
      'an attribute that is too large': [
        /larger than 65535/,
        pax([['SCHILY.xattr.user.x', Buffer.alloc(65_536, 1)]]),
        file('x'),
      ],
    };
    for (const [what, [pattern, ...entries]] of Object.entries(cases))
      it(`${what}, and leaves nothing behind`, async () => {
        await inScratch(async (directory) => {
          await writeFile(join(directory, 'in.tar'), archive(file('good'), ...entries));
          expect(() => tarToDevice(join(directory, 'in.tar'), join(directory, 'out')))
            .throw(pattern)
            .property('class', 'InvalidArgument');
          expect(await listing(directory)).deep.equal(['in.tar']);
        });
      });
  });
});

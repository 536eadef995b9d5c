import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { writeCpio } from '../../../guest/cpio.js';
import { rootDeviceFile } from '../../../guest/root-image.js';
import { Tree } from '../../../guest/tree.js';
import { MIB } from '../../../lib/base/units.js';
import { deviceHeadBytes, hasDeviceHead } from '../../../lib/wire/erofs/pfn-info.js';

function sample(): Tree {
  return new Tree()
    .file('/sbin/agent', Buffer.alloc(100_001, 7), 0o755)
    .link('/bin/agent', '../sbin/agent')
    .directory('/tmp', 0o1777)
    .file('/empty', '');
}

/** The same, added in another order. */
function shuffled(): Tree {
  return new Tree()
    .file('/empty', '')
    .directory('/tmp', 0o1777)
    .link('/bin/agent', '../sbin/agent')
    .file('/sbin/agent', Buffer.alloc(100_001, 7), 0o755);
}

describe('images of the guest', () => {
  let directory: string;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'herkos-images-'));
  });

  afterEach(() => {
    rmSync(directory, { recursive: true });
  });

  describe('a tree', () => {
    it('brings parents before children', () => {
      const paths = sample()
        .entries()
        .map(({ path }) => path);
      expect(paths).to.deep.equal(['/bin', '/bin/agent', '/empty', '/sbin', '/sbin/agent', '/tmp']);
    });

    it('refuses what is there, what lies below a file, and paths that are not plain', () => {
      expect(() => sample().file('/empty', 'x')).to.throw('in the tree already');
      expect(() => sample().file('/empty/below', 'x')).to.throw('no directory');
      for (const path of ['relative', '/', '/a/', '/a//b', '/a/../b', '/./a'])
        expect(() => new Tree().file(path, ''), path).to.throw('plain absolute path');
    });
  });

  describe('the initramfs', () => {
    it('is what cpio unpacks', () => {
      execFileSync('cpio', ['-id', '--quiet'], { cwd: directory, input: writeCpio(sample()) });
      const agent = join(directory, 'bin/agent');
      expect(readFileSync(agent)).to.deep.equal(Buffer.alloc(100_001, 7));
      expect(statSync(agent).mode & 0o7777).to.equal(0o755);
      expect(statSync(join(directory, 'tmp')).mode & 0o7777).to.equal(0o1777);
      expect(statSync(join(directory, 'empty')).size).to.equal(0);
    });

    it('has the same bytes whatever came first', () => {
      expect(writeCpio(shuffled()).equals(writeCpio(sample()))).to.be.true;
    });
  });

  describe('the root', () => {
    it('is a device file that fsck.erofs finds whole', () => {
      const device = rootDeviceFile(sample());
      expect(device.length % (2 * MIB)).to.equal(0);
      expect(hasDeviceHead(device)).to.be.true;
      const image = join(directory, 'root');
      writeFileSync(image, device.subarray(deviceHeadBytes));
      const out = join(directory, 'out');
      execFileSync('fsck.erofs', [`--extract=${out}`, image], { stdio: 'pipe' });
      expect(readFileSync(join(out, 'bin/agent'))).to.deep.equal(Buffer.alloc(100_001, 7));
      expect(statSync(join(out, 'tmp')).mode & 0o7777).to.equal(0o1777);
    });

    it('has the same bytes whatever came first, and others when anything differs', () => {
      const bytes = rootDeviceFile(sample());
      expect(rootDeviceFile(shuffled()).equals(bytes)).to.be.true;
      expect(rootDeviceFile(sample().file('/more', '')).equals(bytes)).to.be.false;
    });
  });
});

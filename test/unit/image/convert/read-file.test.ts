import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect } from 'chai';

import { background, withCancel } from '../../../../lib/base/context.js';
import { readFileInLayers } from '../../../../lib/image/convert/read-file.js';
import { tarToDevice } from '../../../../lib/image/convert/tar-to-device.js';
import type { LayerLocation } from '../../../../lib/image/convert/types.js';
import { archive, entry } from '../../wire/tar/tar-builder.js';
import { failure, inScratch } from './scratch.js';

const file = (name: string, content: string): Buffer => entry({ name }, content);
const link = (name: string, linkName: string): Buffer => entry({ name, type: '2', linkName });

const layers = [
  archive(
    file('etc/passwd', 'lowest'),
    file('etc/group', 'groups'),
    file('gone/file', 'x'),
    file('hidden/lower', 'x'),
    file('replaced/by-file', 'x'),
    link('lib', 'usr/lib'),
    file('usr/lib/os-release', 'os'),
    link('etc/os-release', '../usr/lib/os-release'),
    link('etc/rooted', '/lib/os-release'),
    link('etc/outside', '../../../../../../etc/passwd'),
    link('etc/loop', 'loop'),
    entry({ name: 'etc/device', type: '3', major: 1, minor: 3 }),
  ),
  archive(
    file('etc/passwd', 'middle'),
    file('.wh.gone', ''),
    file('hidden/.wh..wh..opq', ''),
    file('hidden/upper', 'upper'),
    file('replaced', 'a file'),
  ),
  archive(file('etc/shadow', 'top'), file('gone/again', 'back')),
];

describe('reading a file of an image', () => {
  async function inImage(body: (image: readonly LayerLocation[]) => Promise<void>): Promise<void> {
    await inScratch(async (directory) => {
      const image: LayerLocation[] = [];
      for (const [index, bytes] of layers.entries()) {
        const path = join(directory, `layer-${String(index)}`);
        await writeFile(`${path}.tar`, bytes);
        tarToDevice(`${path}.tar`, path);
        image.push({ path, subdir: '' });
      }
      await body(image);
    });
  }

  const expected: Readonly<Record<string, string | undefined>> = {
    '/etc/passwd': 'middle',
    'etc//./group': 'groups',
    '/etc/shadow': 'top',
    '/gone/file': undefined,
    '/gone/again': 'back',
    '/hidden/lower': undefined,
    '/hidden/upper': 'upper',
    '/replaced/by-file': undefined,
    '/replaced': 'a file',
    '/lib/os-release': 'os',
    '/etc/os-release': 'os',
    '/etc/rooted': 'os',
    // Above the image's root is the image's root, never the host.
    '/etc/outside': 'middle',
    '/../../etc/group': 'groups',
    '/etc/loop': undefined,
    '/etc/device': undefined,
    '/etc': undefined,
    '/': undefined,
    '/etc/passwd/below': undefined,
    '/missing': undefined,
  };
  it('sees what an overlay of the layers would show', async () => {
    await inImage(async (image) => {
      for (const [path, content] of Object.entries(expected)) {
        const found = await readFileInLayers(background(), image, path, 1000);
        expect(found?.toString(), path).equal(content);
      }
    });
  });

  it('bounds what it reads, and stops when its context ends', async () => {
    await inImage(async (image) => {
      const error = await failure(readFileInLayers(background(), image, '/etc/passwd', 5));
      expect(error).property('class', 'ResourceExhausted');
      const ctx = withCancel(background());
      ctx.cancel();
      expect(await failure(readFileInLayers(ctx, image, '/etc/passwd', 100))).property('class', 'Cancelled');
    });
  });

  it('says when a device file is not one', async () => {
    await inScratch(async (directory) => {
      await writeFile(join(directory, 'junk'), Buffer.alloc(3 * 1024 * 1024));
      const image = [{ path: join(directory, 'junk'), subdir: '' }];
      expect(await failure(readFileInLayers(background(), image, '/x', 100))).property('class', 'DataLoss');
    });
  });
});

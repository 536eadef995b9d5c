import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { findProgram } from '../../../../lib/drivers/qemu/program.js';
import { rejection } from '../../../tools/rejection.js';

describe('the hypervisor’s program', () => {
  let directory: string;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'hk-program-'));
  });

  afterEach(async () => rm(directory, { recursive: true, force: true }));

  it('is found by its path, and by its name where the jail looks', async () => {
    const path = join(directory, 'qemu');
    await writeFile(path, '', { mode: 0o755 });
    expect(await findProgram(path)).to.equal(path);
    expect(await findProgram('sh')).to.match(/^\/(usr\/)?bin\/sh$/);
  });

  it('is missing when nothing that can be run is there', async () => {
    const text = join(directory, 'text');
    const folder = join(directory, 'folder');
    await writeFile(text, '');
    await chmod(text, 0o644);
    await mkdir(folder);
    for (const binary of [text, folder, join(directory, 'nothing'), join(text, 'below'), 'no-such-qemu']) {
      const error = await rejection(findProgram(binary));
      expect(error, binary).to.have.property('class', 'FailedPrecondition');
      expect(String(error)).to.include(`there is no program ${binary}`).and.to.include('set qemu in [vm]');
    }
  });
});

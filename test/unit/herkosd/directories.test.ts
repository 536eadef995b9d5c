import { mkdir, mkdtemp, realpath, rm, stat, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { prepareDirectories } from '../../../cmd/herkosd/directories.js';
import { parseConfig } from '../../../lib/config/load.js';

describe('the daemon’s directories', () => {
  let root: string;

  beforeEach(async () => {
    root = await realpath(await mkdtemp(join(tmpdir(), 'herkos-dirs-')));
  });

  afterEach(async () => {
    await rm(root, { recursive: true });
  });

  it('are made, and known by their true paths', async () => {
    await mkdir(join(root, 'run'));
    await symlink('run', join(root, 'var-run'));
    const text = `[node]\nstate_dir = "${root}/state/"\nrun_dir = "${root}/var-run/herkos"\n`;
    const config = parseConfig(text, 'test');
    const { node, ...rest } = await prepareDirectories(config);
    expect(node).to.deep.equal({
      ...config.node,
      state_dir: join(root, 'state'),
      run_dir: join(root, 'run/herkos'),
    });
    expect({ ...rest, node: config.node }).to.deep.equal(config);
    for (const directory of [node.state_dir, node.run_dir])
      expect((await stat(directory)).isDirectory()).to.equal(true);
  });
});

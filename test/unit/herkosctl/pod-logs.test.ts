import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect } from 'chai';

import { Harness } from '../cri/harness.js';
import { herkosctl } from './cli.js';

describe('herkosctl rm and the logs of pods', () => {
  let cri: Harness;
  beforeEach(async () => {
    cri = await Harness.start();
  });
  afterEach(async () => {
    await cri.stop();
  });

  const remove = async (name: string): Promise<void> => {
    expect((await herkosctl(cri.socketPath, ['rm', '-f', name])).error).to.equal(undefined);
    expect(cri.pods.sandboxes()).to.deep.equal([]);
  };
  /** A pod of `run`, with a log; where that is. */
  const run = async (root = join(cri.directory, 'elsewhere')): Promise<string> => {
    const args = ['run', '-d', '--name', 'web', '--log-dir', root, 'example.org/app:1'];
    expect((await herkosctl(cri.socketPath, args)).error).to.equal(undefined);
    const directory = cri.pods.sandboxes()[0]?.config.logDirectory ?? '';
    await fill(directory);
    return directory;
  };
  const fill = async (directory: string): Promise<void> => {
    await mkdir(join(directory, 'main'), { recursive: true });
    await writeFile(join(directory, 'main/0.log'), 'x');
  };

  it('removes those of a pod of run, wherever they are, and nothing beside them', async () => {
    const directory = await run();
    expect(directory).to.match(/\/elsewhere\/herkosctl_web_[0-9a-f-]{36}$/);
    await fill(join(cri.directory, 'elsewhere/other'));
    await remove('web');
    expect(await readdir(join(cri.directory, 'elsewhere'))).to.deep.equal(['other']);
  });

  it('does without logs that are gone already', async () => {
    const directory = await run();
    await rename(directory, `${directory}-moved`);
    await remove('web');
  });

  it('follows no link', async () => {
    const directory = await run();
    await rename(directory, `${directory}-moved`);
    await symlink(`${directory}-moved`, directory);
    await remove('web');
    expect(existsSync(join(`${directory}-moved`, 'main/0.log'))).to.equal(true);
  });

  it('leaves those of others alone, by whatever names', async () => {
    const metadata = { name: 'web', namespace: 'herkosctl', uid: 'u1', attempt: 0 };
    const annotations = { 'herkos.io/made-by': 'herkosctl-run' };
    for (const [directory, config] of [
      ['herkosctl_web_u1', { metadata }],
      ['herkosctl_web_u1', { metadata: { ...metadata, namespace: 'default' }, annotations }],
      ['herkosctl_web_u2', { metadata, annotations }],
      ['default_web_u1', { metadata: { ...metadata, namespace: 'default' }, annotations }],
      ['', { metadata, annotations }],
    ] as const) {
      const logDirectory = directory === '' ? '' : join(cri.directory, directory);
      if (logDirectory !== '') await fill(logDirectory);
      await cri.sandbox('web', { ...config, logDirectory });
      await remove('web');
      if (logDirectory !== '') expect(await readdir(logDirectory), directory).to.deep.equal(['main']);
    }
  });
}).timeout(60_000);

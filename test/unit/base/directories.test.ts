import { spawnSync } from 'node:child_process';
import { mkdtemp, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { makeDirectories } from '../../../lib/base/directories.js';
import { rejection } from '../../tools/rejection.js';

const files = new URL('../../../lib/pod/output/files.js', import.meta.url).href;
const cgroups = new URL('../../../lib/drivers/cgroup/cgroup-fs.js', import.meta.url).href;
const childTimeoutMs = 10_000;

/** What a program prints, in a process that ends even if it hangs. */
function printed(program: string): string {
  const { stdout, signal } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
    timeout: childTimeoutMs,
    killSignal: 'SIGKILL',
  });
  return signal ?? stdout.trim();
}

describe('base/directories', () => {
  let root: string;

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'herkos-base-'));
  });

  afterEach(async () => rm(root, { recursive: true, force: true }));

  it('makes what is missing, with the mode', async () => {
    const path = join(root, 'a/b/c');
    await makeDirectories(path, 0o750);
    for (const one of ['a', 'a/b', 'a/b/c'])
      expect((await stat(join(root, one))).mode & 0o777).to.equal(0o750);
  });

  it('is content with what is there, by a link too', async () => {
    await symlink(root, join(root, 'link'));
    for (const path of ['/', root, join(root, 'link'), join(root, 'link/below/'), join(root, 'link/below/')])
      await makeDirectories(path, 0o755);
    expect((await stat(join(root, 'below'))).isDirectory()).to.equal(true);
  });

  it('lets many make the same at once', async () => {
    const path = join(root, 'a/b/c/d');
    await Promise.all(Array.from({ length: 20 }, () => makeDirectories(path, 0o755)));
    expect((await stat(path)).isDirectory()).to.equal(true);
  });

  it('ends with the error where it cannot go on', async () => {
    await writeFile(join(root, 'file'), '');
    await symlink(join(root, 'nowhere'), join(root, 'dangling'));
    const errors: readonly (readonly [string, string])[] = [
      ['file', 'EEXIST'],
      ['file/a/b', 'ENOTDIR'],
      ['dangling', 'EEXIST'],
      ['dangling/a', 'EEXIST'],
    ];
    for (const [path, code] of errors)
      expect(await rejection(makeDirectories(join(root, path), 0o755)), path).to.have.property('code', code);
  });

  it('ends where the kernel has a parent and no room for children, for logs and cgroups', () => {
    const path = '/proc/herkos-nowhere/pod';
    const end = '.then(() => "made", (error) => error.code).then(console.log)';
    expect(
      printed(
        `import { systemLogFiles } from '${files}'; await systemLogFiles.open('${path}/0.log', true)${end}`,
      ),
    ).to.equal('ENOENT');
    expect(
      printed(
        `import { systemCgroupFs } from '${cgroups}'; await systemCgroupFs.makeDirectory('${path}')${end}`,
      ),
    ).to.equal('ENOENT');
  }).timeout(3 * childTimeoutMs);
});

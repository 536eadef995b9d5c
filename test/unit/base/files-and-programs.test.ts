import { mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { writeFileAtomic } from '../../../lib/base/atomic-file.js';
import { background, withTimeout } from '../../../lib/base/context.js';
import { systemExec } from '../../../lib/base/exec.js';
import { formatBytes, parseBytes, roundUp } from '../../../lib/base/units.js';
import { rejection } from '../../tools/rejection.js';

describe('base/atomic-file', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'herkos-base-'));
  });
  afterEach(async () => rm(directory, { recursive: true, force: true }));

  it('replaces the content with the asked mode and leaves nothing else', async () => {
    const path = join(directory, 'record.json');
    await writeFile(path, 'old');
    await writeFileAtomic(path, 'new', 0o640);
    expect(await readFile(path, 'utf8')).to.equal('new');
    expect((await stat(path)).mode & 0o777).to.equal(0o640);
    expect(await readdir(directory)).to.deep.equal(['record.json']);
  });

  it('leaves no temporary file when it cannot finish', async () => {
    const path = join(directory, 'taken');
    const { mkdir } = await import('node:fs/promises');
    await mkdir(join(path, 'child'), { recursive: true });
    await rejection(writeFileAtomic(path, 'x'));
    expect(await readdir(directory)).to.deep.equal(['taken']);
  });
});

describe('base/exec', () => {
  it('passes input and keeps both outputs and the exit code', async () => {
    const script = 'cat; echo problem >&2; exit 3';
    const result = await systemExec.run(background(), 'sh', ['-c', script], {
      input: 'words',
      okExitCodes: [3],
    });
    expect(result.exitCode).to.equal(3);
    expect(result.stdout.toString()).to.equal('words');
    expect(result.stderr.toString()).to.equal('problem\n');
  });

  it('puts what the program said into the error', async () => {
    const error = await rejection(
      systemExec.run(background(), 'sh', ['-c', 'echo no such bridge >&2; exit 1']),
    );
    expect(String(error)).to.include('exit code 1').and.to.include('no such bridge');
  });

  it('says which program is not installed', async () => {
    const error = await rejection(systemExec.run(background(), 'herkos-no-such-program', []));
    expect(error).to.have.property('class', 'FailedPrecondition');
    expect(String(error)).to.include('herkos-no-such-program');
  });

  it('kills the program when the deadline passes', async () => {
    const ctx = withTimeout(background(), 50, 'sleeping');
    const error = await rejection(systemExec.run(ctx, 'sleep', ['600']));
    expect(error).to.have.property('class', 'DeadlineExceeded');
  });

  it('stops a program that prints without end', async () => {
    const error = await rejection(systemExec.run(background(), 'yes', [], { outputBytesMax: 4096 }));
    expect(error).to.have.property('class', 'ResourceExhausted');
  });
});

describe('base/units', () => {
  it('reads sizes as operators write them', () => {
    expect(['0', '4096', '512MiB', '10Gi', '1.5G', '2 kib'].map(parseBytes)).to.deep.equal([
      0, 4096, 536870912, 10737418240, 1610612736, 2048,
    ]);
  });

  it('refuses what is not a size', () => {
    for (const text of ['', 'many', '-1', '5 parsecs', '1e9', 'MiB'])
      expect(() => parseBytes(text), text).to.throw('is not a size');
  });

  it('formats for people and rounds up', () => {
    expect([formatBytes(0), formatBytes(1023), formatBytes(1536)]).to.deep.equal([
      '0 B',
      '1023 B',
      '1.5 KiB',
    ]);
    expect([roundUp(0, 4), roundUp(1, 4), roundUp(8, 4)]).to.deep.equal([0, 4, 8]);
  });
});

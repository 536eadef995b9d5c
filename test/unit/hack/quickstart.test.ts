import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

import { expect } from 'chai';

import { endWithUs } from '../../tools/end-with-us.js';
import { eventually } from '../../tools/eventually.js';

const quickstart = resolve(import.meta.dirname, '../../../../hack/quickstart');

describe('hack/quickstart', () => {
  let directory: string;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'herkos-quickstart-test-'));
    await copyFile(quickstart, join(directory, 'quickstart'));
    const double =
      'setup_all() { :; }; die() { echo "$*"; exit 1; }; HERKOS_SOURCE=/nowhere; HERKOS_LOCKS=$(dirname "$0")';
    await writeFile(join(directory, 'lib.sh'), `${double}\n`);
    await writeFile(join(directory, 'node'), '#!/bin/sh\necho started\nexec sleep 1000\n', { mode: 0o755 });
  });

  afterEach(async () => {
    await rm(directory, { recursive: true, force: true });
  });

  function start(said: string[]): ChildProcess {
    const child = spawn('bash', [join(directory, 'quickstart')], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { PATH: `${directory}:${process.env['PATH'] ?? ''}` },
    });
    endWithUs(child);
    child.stdout.on('data', (part: Buffer) => said.push(part.toString()));
    return child;
  }

  it('does not start while another one runs', async () => {
    const said: string[] = [];
    const first = start(said);
    await eventually(() => said.length > 0);
    const second = start(said);
    expect(await once(second, 'close')).to.deep.equal([1, null]);
    expect(said.join('')).to.equal('started\nanother quickstart runs on this machine; wait for its end\n');
    first.kill('SIGKILL');
    await once(first, 'close');
  });
});

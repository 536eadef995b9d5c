/** The steps that the commands in hack/ share, on doubles of the programs that they run. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

import { expect } from 'chai';

import { endWithUs } from '../../tools/end-with-us.js';
import { eventually } from '../../tools/eventually.js';

const library = resolve(import.meta.dirname, '../../../../hack/lib.sh');

describe('the steps of set-up', () => {
  let directory: string;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'herkos hack-'));
  });

  afterEach(async () => {
    await rm(directory, { recursive: true });
  });

  /** With programs of the test before all others, and its directory as the source. */
  function start(script: string): ChildProcess {
    const begin = `set -euo pipefail; . "$LIBRARY"; HERKOS_SOURCE=$DIRECTORY; cd "$DIRECTORY"`;
    const child = spawn('bash', ['-c', `${begin}\n${script}`], {
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe'],
      env: {
        PATH: `${directory}:${process.env['PATH'] ?? ''}`,
        TMPDIR: directory,
        LIBRARY: library,
        DIRECTORY: directory,
      },
    });
    endWithUs(child);
    return child;
  }

  async function program(name: string, lines: string): Promise<void> {
    await writeFile(join(directory, name), `#!/bin/bash\n${lines}\n`, { mode: 0o755 });
  }

  async function written(name: string): Promise<string> {
    return readFile(join(directory, name), 'utf8').catch(() => '');
  }

  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    it(`are ended by ${signal}, with all that they started`, async () => {
      await program('long', 'sleep 1000 & echo $! > child; wait');
      const script = start('watched "something long" long');
      await eventually(async () => (await written('child')).endsWith('\n'));
      const child = Number(await written('child'));
      const ended = once(script, 'exit');
      // As a terminal does: to the whole group.
      process.kill(-(script.pid ?? 0), signal);
      expect(await ended).to.deep.equal([1, null]);
      expect(await isThere(child)).to.equal(false);
    });

  it('are made by one at a time', async () => {
    await program('npm-and-all', 'echo begin >> steps; sleep 0.1; echo end >> steps');
    const script = `
      require_machine() { :; }
      for name in packages node host; do eval "setup_$name() { :; }"; done
      setup_guest() { npm-and-all; }
      setup_all`;
    const exits = [1, 2, 3].map(async () => once(start(script), 'exit'));
    expect(await Promise.all(exits)).to.deep.equal([1, 2, 3].map(() => [0, null]));
    expect(await written('steps')).to.equal('begin\nend\n'.repeat(3));
  });

  it('wait for whoever has apt’s lock, and for nothing else', async () => {
    await program('sleep', 'echo waited >> steps');
    await program(
      'apt-get',
      '[[ -e steps ]] && exit 0; echo "E: Could not get lock /var/lib/apt/lists/lock." >&2; exit 100',
    );
    expect(await once(start('apt_get update 2>log >log'), 'exit')).to.deep.equal([0, null]);
    expect(await written('steps')).to.equal('waited\n');
    await program('apt-get', 'echo "E: Unable to locate package x" >&2; exit 100');
    expect(await once(start('apt_get install x 2>log >log'), 'exit')).to.deep.equal([100, null]);
    expect(await written('log')).to.include('Unable to locate package x');
  });

  it('put the host helper where the daemon looks for it', async () => {
    await program('cargo', 'echo "$@" > "$DIRECTORY/args"');
    await program('mkdirs', 'mkdir -p cmd/herkos-host');
    expect(await once(start('mkdirs; setup_host'), 'exit')).to.deep.equal([0, null]);
    expect(await written('args')).to.include('--target-dir target');
  });
});

/** A zombie that nobody has reaped yet is not there any more. */
async function isThere(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${String(pid)}/stat`, 'utf8').catch(() => '');
  return stat !== '' && !stat.includes(') Z ');
}

/** What everything that starts programs which outlive the daemon must do. */
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import type { LaunchedProgram, Launcher } from '../../lib/base/exec.js';
import { isAlive, killIfThere, readStat } from '../../lib/base/processes.js';
import { eventually } from '../tools/eventually.js';
import { rejection } from '../tools/rejection.js';

const env = { PATH: '/usr/bin:/bin', KEY: 'a b' };

export function launcherSuite(name: string, newLauncher: () => Launcher): void {
  describe(`programs that outlive the daemon: ${name}`, () => {
    let launcher: Launcher;
    let directory: string;
    let log: string;
    const launched: LaunchedProgram[] = [];

    before(() => {
      launcher = newLauncher();
    });

    beforeEach(async () => {
      directory = await mkdtemp(join(tmpdir(), 'herkos-launch-'));
      log = join(directory, 'log');
      await writeFile(log, 'before\n');
    });

    afterEach(async () => {
      for (const { pid, startTicks } of launched.splice(0))
        if (await isAlive(pid, startTicks)) killIfThere(pid);
      await rm(directory, { recursive: true });
    });

    async function launch(script: string): Promise<LaunchedProgram> {
      const program = await launcher.launch('sh', ['-c', script], { env, log });
      launched.push(program);
      return program;
    }

    it('have a session, the directory / and the environment that was given', async () => {
      const { pid, ended } = await launch('echo $KEY; pwd; ps -o sid= -p $$; cat; echo $HOME');
      expect(await ended).to.deep.equal({ exitCode: 0 });
      const words = (await readFile(log, 'utf8')).split('\n').map((line) => line.trim());
      expect(words).to.deep.equal(['before', 'a b', '/', String(pid), '', '']);
    });

    it('are named by pid and start time while they run, and say how they ended', async () => {
      const { pid, startTicks, ended } = await launch('echo words >&2; sleep 1000');
      expect((await readStat(pid))?.startTicks).to.equal(startTicks);
      await eventually(async () => (await readFile(log, 'utf8')).includes('words'));
      process.kill(pid, 'SIGTERM');
      expect(await ended).to.deep.equal({ signal: 'SIGTERM' });
      expect(await isAlive(pid, startTicks)).to.equal(false);
    });

    it('are told when they end at once', async () => {
      const programs = await Promise.all(
        Array.from({ length: 20 }, async (_, code) => launch(`exit ${String(code)}`)),
      );
      const ends = await Promise.all(programs.map(async ({ ended }) => ended));
      expect(ends).to.deep.equal(programs.map((_, exitCode) => ({ exitCode })));
    });

    it('are refused with the reason', async () => {
      const missing = await rejection(launcher.launch('/no/such', [], { env, log }));
      expect(missing).to.have.property('class', 'FailedPrecondition');
      expect(String(missing)).to.include('/no/such');
    });

    it('write to no log that is not there, or leads elsewhere', async () => {
      await symlink('log', join(directory, 'link'));
      for (const place of ['missing', 'link'])
        await rejection(launcher.launch('sh', ['-c', 'echo x'], { env, log: join(directory, place) }));
      expect(await readFile(log, 'utf8')).to.equal('before\n');
    });
  });
}

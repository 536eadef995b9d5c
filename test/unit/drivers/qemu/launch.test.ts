import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { background, withCancel } from '../../../../lib/base/context.js';
import type { LaunchedProgram, Launcher } from '../../../../lib/base/exec.js';
import { Gate } from '../../../../lib/base/gate.js';
import { isAlive, readStat } from '../../../../lib/base/processes.js';
import { launch } from '../../../../lib/drivers/qemu/launch.js';
import { RunDirectory } from '../../../../lib/drivers/qemu/run-dir.js';
import { newId } from '../../../../lib/base/ids.js';
import { eventually } from '../../../tools/eventually.js';
import { rejection } from '../../../tools/rejection.js';

describe('a QEMU that is started for somebody who leaves', () => {
  it('ends when the answer of its start comes, and nobody hears of it', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'hk-launch-'));
    try {
      const runDir = new RunDirectory(directory);
      await runDir.prepare();
      const uid = process.getuid?.() ?? 0;
      const [asked, answered] = [new Gate(), new Gate()];
      let launched: LaunchedProgram | undefined;
      const launcher: Launcher = {
        launch: async () => {
          const child = spawn('sleep', ['300'], { stdio: 'ignore' });
          const ended = new Promise<{ signal: string }>((resolve) => {
            child.once('exit', () => {
              resolve({ signal: 'SIGKILL' });
            });
          });
          const pid = child.pid ?? 0;
          launched = { pid, startTicks: (await readStat(pid))?.startTicks ?? '', ended };
          asked.open();
          await answered.opened;
          return launched;
        },
      };
      const caller = withCancel(background());
      const told: number[] = [];
      const launching = rejection(
        launch(caller, {
          launcher,
          hostHelper: '/nowhere',
          paths: await runDir.create(newId(), uid),
          jail: {
            uid,
            groups: [],
            netnsPath: '/nowhere',
            procsFiles: [],
            deviceDirectory: '/nowhere',
            memory: undefined,
            hugePages: false,
            feignHoles: false,
            program: '/nowhere',
            args: [],
          },
          onStarted: ({ pid }) => told.push(pid),
        }),
      );
      await asked.opened;
      caller.cancel();
      expect(await launching).to.have.property('class', 'Cancelled');
      answered.open();
      await eventually(
        async () => launched !== undefined && !(await isAlive(launched.pid, launched.startTicks)),
      );
      expect(told).to.deep.equal([]);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
});

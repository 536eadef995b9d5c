import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { background, underDeadline } from '../../lib/base/context.js';
import { AgentConnector } from '../../lib/drivers/guest/connector.js';
import { commandLine } from '../../lib/drivers/qemu/command-line.js';
import { loadGuestFiles } from '../../lib/drivers/qemu/guest-files.js';
import { qemuDefaults } from '../../lib/drivers/qemu/settings.js';
import { HerkosdProcess, testAccelerator } from '../tools/herkosd-process.js';
import { sandboxConfig } from '../tools/pod-config.js';
import type { Bench } from './bench.js';
import { row, timed } from './bench.js';
import { testMachineId } from '../tools/machine-id.js';

const rounds = 7;
const bootTimeoutMs = 60_000;
const socketPollMs = 2;
const guestDirectory = resolve(import.meta.dirname, '../../../guest/out');
const shape = { vcpus: 1, memoryMib: 256 };

/** RunPodSandbox, against QEMU started by hand with the same machine, kernel and image, until its agent answers. */
export const sandboxCold: Bench = {
  names: ['sandbox-cold'],
  about: 'RunPodSandbox until READY, against a raw QEMU boot of the same kernel and image',
  async run(say) {
    const herkosd = await HerkosdProcess.start();
    const own: number[] = [];
    const raw: number[] = [];
    try {
      // The first pod writes the built-in network and makes its bridge; that is not what is measured.
      await onePod(herkosd);
      for (let round = 0; round < rounds; round += 1) {
        raw.push(await rawBoot());
        own.push(await onePod(herkosd));
        say(
          `round ${String(round + 1)}: ${own.at(-1)?.toFixed(0) ?? ''} ms, raw ${raw.at(-1)?.toFixed(0) ?? ''} ms`,
        );
      }
    } finally {
      await herkosd.cleanUp();
    }
    return [
      row({
        name: 'sandbox-cold',
        unit: 'ms',
        samples: own,
        goal: '<= 1.15 x',
        peer: { name: 'raw QEMU cold boot', samples: raw },
      }),
    ];
  },
};

async function onePod(herkosd: HerkosdProcess): Promise<number> {
  let podSandboxId = '';
  const ms = await timed(async () => {
    ({ podSandboxId } = await herkosd.client.runtime('runPodSandbox', { config: sandboxConfig() }));
  });
  await herkosd.client.runtime('stopPodSandbox', { podSandboxId });
  await herkosd.client.runtime('removePodSandbox', { podSandboxId });
  return ms;
}

/** Milliseconds from starting QEMU to the agent's first answer. */
async function rawBoot(): Promise<number> {
  const directory = await mkdtemp('/tmp/herkos-raw-');
  const guest = await loadGuestFiles(guestDirectory);
  const paths = {
    directory,
    qmpSocket: join(directory, 'qmp'),
    agentSocket: join(directory, 'agent'),
    log: join(directory, 'log'),
    devices: join(directory, 'devices.json'),
  };
  const args = commandLine(qemuDefaults, {
    processName: 'herkos-bench-raw',
    shape,
    accelerator: testAccelerator,
    guest,
    guestRootBytes: guest.root === undefined ? 0 : (await stat(guest.root)).size,
    paths,
  });
  const began = performance.now();
  const child = spawn(qemuDefaults.binary, args, { stdio: 'ignore' });
  try {
    return await underDeadline(background(), bootTimeoutMs, 'a raw boot', async (ctx) => {
      await letRun(paths.qmpSocket);
      const agent = await new AgentConnector().connect(ctx, paths.agentSocket, testMachineId);
      const ms = performance.now() - began;
      await agent.close();
      return ms;
    });
  } finally {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    await rm(directory, { recursive: true, force: true });
  }
}

/** The machine waits for `cont`: QMP's shortest conversation. */
async function letRun(path: string): Promise<void> {
  const socket = await connected(path);
  await once(socket, 'data');
  socket.write('{"execute":"qmp_capabilities"}\n');
  await once(socket, 'data');
  socket.write('{"execute":"cont"}\n');
  await once(socket, 'data');
  socket.destroy();
}

/** QEMU makes the socket's name before it listens, and gives no sign of either. */
async function connected(path: string): Promise<Socket> {
  for (;;) {
    const socket = connect(path);
    try {
      await once(socket, 'connect');
      return socket;
    } catch {
      await delay(socketPollMs);
    }
  }
}

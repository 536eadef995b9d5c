/** `hack/quickstart`, after set-up: a pod in its own VM, on the defaults, pulled from a real registry. */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { once } from 'node:events';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { daemonNodeFlags } from '../cmd/herkosd/node-flags.js';
import { pushExampleImage } from '../test/tools/example-image.js';
import { RegistryProcess } from '../test/tools/registry-process.js';
import { Interruption } from './interruption.js';
import { NodeTraces } from './node-traces.js';

const socketPath = '/run/herkos/herkos.sock';
const compiled = resolve(import.meta.dirname, '..');
const herkosd = join(compiled, 'cmd/herkosd/main.js');
const herkosctl = join(compiled, 'cmd/herkosctl/main.js');
const readyTimeoutMs = 60_000;
const pollMs = 200;

const interruption = new Interruption();
// The terminal may be gone before what was made on the machine is.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

const serve = process.argv.includes('--serve');

function step(text: string): void {
  console.log(`==> ${text}`);
}

/** Runs herkosctl on this terminal. */
async function ctl(...args: string[]): Promise<void> {
  console.log(`    $ herkosctl ${args.join(' ')}`);
  interruption.check();
  const child = spawn(process.execPath, [herkosctl, ...args], { stdio: 'inherit' });
  const code = await interruption.ended(child);
  if (code !== 0) throw new Error(`herkosctl ${args[0] ?? ''} failed with exit code ${String(code)}`);
}

/** What herkosctl prints. */
async function ctlOutput(...args: string[]): Promise<string> {
  const child = spawn(process.execPath, [herkosctl, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const parts: Buffer[] = [];
  child.stdout.on('data', (part: Buffer) => parts.push(part));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`herkosctl ${args[0] ?? ''} failed with exit code ${String(code)}`);
  return Buffer.concat(parts).toString('utf8').trim();
}

async function answers(): Promise<boolean> {
  const child = spawn(process.execPath, [herkosctl, 'ps'], { stdio: 'ignore' });
  const [code] = (await once(child, 'exit')) as [number | null];
  return code === 0;
}

/** The daemon on its defaults; with --serve it outlives this program. */
async function startDaemon(logPath: string): Promise<ChildProcess> {
  const log = openSync(logPath, 'a');
  const child = spawn(process.execPath, [...daemonNodeFlags, herkosd], {
    stdio: ['ignore', log, log],
    // Ctrl-C is not for it: pods are removed while it serves.
    detached: true,
  });
  daemon = child;
  closeSync(log);
  const until = Date.now() + readyTimeoutMs;
  while (!(await answers())) {
    if (!runs(child) || Date.now() > until)
      throw new Error(`the daemon does not answer:\n${await readFile(logPath, 'utf8')}`);
    await delay(pollMs);
    interruption.check();
  }
  return child;
}

/** Of pods that were cut short there may be nothing, or anything. */
async function removeIfThere(names: readonly string[]): Promise<void> {
  interruption.forget();
  step('cleaning up');
  for (const name of names) {
    // Another Ctrl-C is not for it either.
    const child = spawn(process.execPath, [herkosctl, 'rm', '--force', name], {
      stdio: 'inherit',
      detached: true,
    });
    await once(child, 'exit');
  }
}

async function runPod(image: string): Promise<void> {
  const logs = join(directory, 'pods');
  step('a pod in its own VM: pull, boot, create, start');
  const name = `quickstart-${String(process.pid)}`;
  const short = `${name}-short`;
  let pods = [name];
  try {
    await ctl(
      'run',
      '--detach',
      '--pull',
      'always',
      '--name',
      name,
      '--log-dir',
      logs,
      image,
      'sleep',
      '3600',
    );
    step('inside: its own kernel, its own address');
    await ctl('exec', name, 'uname', '-a');
    await ctl('exec', name, 'sh', '-c', 'hostname; ip -brief address show 2>/dev/null || ip address show');
    step('a command that ends: its output is its log');
    pods = [name, short];
    const words = ['echo', 'hello from a virtual machine'];
    await ctl('run', '--rm', '--quiet', '--name', short, '--log-dir', logs, image, ...words);
    pods = [name];
    await ctl('ps');
  } catch (error) {
    await removeIfThere(pods);
    throw error;
  }
  step('cleaning up the pod');
  await ctl('rm', '--force', name);
}

function runs(child: ChildProcess): boolean {
  return child.exitCode === null && child.signalCode === null;
}

/** False when it did not work, or pods are left that need what would be removed. */
async function removeTraces(traces: NodeTraces): Promise<boolean> {
  step('removing what was made on this machine');
  try {
    for (const name of await traces.remove()) console.log(`    ${name}`);
    return true;
  } catch (error) {
    console.error(`error: ${error instanceof Error ? error.message : String(error)}`);
    return false;
  }
}

const directory = await mkdtemp('/tmp/herkos-quickstart-');
let registry: RegistryProcess | undefined;
let daemon: ChildProcess | undefined;
let traces: NodeTraces | undefined;
let failed = false;
try {
  if (await answers())
    throw new Error(`a daemon serves on ${socketPath} already; end it first (it may be from --serve)`);
  step('a registry on this machine, with an image made of Debian packages');
  registry = await RegistryProcess.start();
  const image = await pushExampleImage(registry);
  console.log(`    ${image}`);
  interruption.check();
  step(`herkosd on ${socketPath}`);
  traces = await NodeTraces.look();
  daemon = await startDaemon(join(directory, 'herkosd.log'));
  await runPod(image);
  if (serve) {
    console.log(`
herkosd serves on ${socketPath} (pid ${String(daemon.pid)}, log ${join(directory, 'herkosd.log')}).
Try: crictl -r unix://${socketPath} info
     crictl -r unix://${socketPath} -i unix://${socketPath} images
End it with: kill ${String(daemon.pid)}`);
    daemon.unref();
  } else {
    step('removing the image');
    await ctl('image', 'rm', image);
    console.log(await ctlOutput('ps'));
  }
} catch (error) {
  failed = true;
  console.error(`error: ${error instanceof Error ? error.message : String(error)}`);
} finally {
  interruption.forget();
  await registry?.stop();
  if (!serve || failed) {
    if (daemon !== undefined && runs(daemon)) {
      daemon.kill('SIGTERM');
      await once(daemon, 'exit');
    }
    if (traces !== undefined && !(await removeTraces(traces))) failed = true;
    await rm(directory, { recursive: true, force: true });
  }
}
process.exit(failed ? 1 : 0);

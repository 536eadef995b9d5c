import { appendFile, readFile, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { systemExec } from '../../../lib/base/exec.js';
import { MIB } from '../../../lib/base/units.js';
import { AgentConnector } from '../../../lib/drivers/guest/connector.js';
import { RunDirectory } from '../../../lib/drivers/qemu/run-dir.js';
import { machineIdOf } from '../../../lib/model/sandbox.js';
import { builtTemplate } from '../../tools/built-template.js';
import { eventually } from '../../tools/eventually.js';
import type { HerkosdProcess } from '../../tools/herkosd-process.js';
import { NodeFixture } from '../../tools/node-fixture.js';
import { rejection } from '../../tools/rejection.js';

/** Which of pool, clone and cold a pod's VM is, and how its phases went. */
async function vmOf(node: NodeFixture, podSandboxId: string): Promise<Record<string, unknown>> {
  const request = { podSandboxId, verbose: true };
  const { info } = await node.daemon.client.runtime('podSandboxStatus', request);
  const parsed = JSON.parse(info['info'] ?? '{}') as { vm: Record<string, unknown> };
  return parsed.vm;
}

async function sourceOf(node: NodeFixture, podSandboxId: string): Promise<unknown> {
  return (await vmOf(node, podSandboxId))['source'];
}

async function logged(daemon: HerkosdProcess, text: string): Promise<void> {
  await eventually(async () => (await daemon.log()).includes(text));
}

interface TemplatePlace {
  /** As root finds it, and the process that holds it. */
  readonly memory: { readonly path: string; readonly pid: number; readonly inode: number };
  readonly state: string;
  readonly directory: string;
}

/** Where the daemon's only template is. */
async function templateOf(daemon: HerkosdProcess): Promise<TemplatePlace> {
  const root = join(daemon.directory, 'run/templates');
  const [id = ''] = await readdir(root);
  const directory = join(root, id);
  const text = await readFile(join(directory, 'template.json'), 'utf8');
  const { memory } = JSON.parse(text) as Pick<TemplatePlace, 'memory'>;
  return { memory, directory, state: join(directory, 'state') };
}

/** What a shell with all rights of a VM's process is told. */
async function asVm(pid: number, script: string): Promise<string> {
  const status = await readFile(`/proc/${String(pid)}/status`, 'utf8');
  const [uid = ''] = /^Uid:\s*(\d+)/m.exec(status)?.slice(1) ?? [];
  const groups = /^Groups:\s*(.*\S)\s*$/m.exec(status)?.[1]?.replaceAll(' ', ',') ?? '';
  const user = ['--reuid', uid, '--regid', uid, '--groups', groups, '--'];
  const { stdout, stderr } = await systemExec.run(
    background(),
    'setpriv',
    [...user, '/bin/sh', '-c', script],
    { okExitCodes: [0, 1, 2] },
  );
  return stdout.toString('utf8') + stderr.toString('utf8');
}

/** Addresses from which frames have come to the bridge that pods are on. */
async function sendersOn(daemon: HerkosdProcess): Promise<string[]> {
  const args = ['-json', 'fdb', 'show', 'br', `${daemon.instance}br`, 'dynamic'];
  const { stdout } = await systemExec.run(background(), 'bridge', args);
  const entries = JSON.parse(stdout.toString('utf8')) as { readonly mac: string }[];
  return [...new Set(entries.map(({ mac }) => mac))];
}

/** Of the pod that no machine is yet: the rehearsal's names and addresses (agent/src/net/plan.rs, pod.rs). */
async function expectNothingRehearsed(node: NodeFixture, container: string): Promise<void> {
  const seen = await node.exec(container, 'sh', '-c', 'ip addr; ip route; ip -6 route; hostname; cat /etc/*');
  expect(seen).to.include('eth0');
  expect(seen).not.to.match(/192\.0\.2\.|2001:db8|rehearsal/);
  // The network of this node has no IPv6, so nobody is there to be called with it.
  expect(await node.exec(container, 'cat', '/proc/net/if_inet6')).not.to.include('eth0');
}

/** What the agent of a pod says whose machine it is. No daemon may be connected to it. */
async function machineIdOfAgent({ daemon }: NodeFixture, pod: string): Promise<string> {
  const { agentSocket } = new RunDirectory(join(daemon.directory, 'run')).pathsOf(pod);
  const refused = await rejection(new AgentConnector().connect(background(), agentSocket, 'f'.repeat(32)));
  return /this machine is ([0-9a-f]{32}) and cannot become/.exec(String(refused))?.[1] ?? String(refused);
}

describe('pods out of a template', () => {
  let node: NodeFixture;

  before(async () => {
    node = await NodeFixture.start();
    await logged(node.daemon, 'a template is ready');
  });

  after(async () => node.stop());

  afterEach(async () => {
    await node.daemon.removeAllPods();
    expect(await node.daemon.leftovers()).to.deep.equal([]);
  });

  it('are no twins, though two are cloned at once (S5)', async () => {
    const before = Date.now();
    const pods = await Promise.all(['one', 'two'].map(async (name) => node.runSandbox(name)));
    const seen = await Promise.all(
      pods.map(async (pod) => {
        expect(await sourceOf(node, pod)).to.equal('clone');
        const container = await node.startContainer(pod, 'c');
        await expectNothingRehearsed(node, container);
        const read = async (...command: string[]): Promise<string> => node.exec(container, ...command);
        const clock = Number(await read('date', '+%s'));
        expect(clock, 'the clock').to.be.within(Math.floor(before / 1000), Date.now() / 1000);
        return {
          urandom: await read('head', '-c', '32', '/dev/urandom').then((text) =>
            Buffer.from(text).toString('hex'),
          ),
          // busybox asks getrandom(2) for it.
          random: await read('od', '-An', '-tx1', '-N32', '/dev/random'),
          uuid: await read('cat', '/proc/sys/kernel/random/uuid'),
          bootId: await read('cat', '/proc/sys/kernel/random/boot_id'),
          mac: (await read('cat', '/sys/class/net/eth0/address')).trim(),
          heard: await read(
            'sh',
            '-c',
            'ping -c 1 -W 10 $(ip route | sed -n "s/^default via \\([^ ]*\\).*/\\1/p")',
          ),
          hostname: await read('hostname'),
        };
      }),
    );
    const [one, two] = seen;
    for (const what of ['urandom', 'random', 'uuid', 'bootId', 'mac'] as const)
      expect(one?.[what], what).not.to.equal(two?.[what]);
    // Neither the template's address nor another one of the card has ever been on the wire.
    const macs = seen.map(({ mac }) => mac);
    expect(await sendersOn(node.daemon)).to.have.members(macs);
    expect(seen.map(({ hostname }) => hostname.trim())).to.deep.equal(['one', 'two']);

    // No container sees the machine's own id; whoever calls it by another one is told.
    await node.daemon.crash();
    const ids = await Promise.all(pods.map(async (pod) => machineIdOfAgent(node, pod)));
    expect(ids).to.deep.equal(pods.map((id) => machineIdOf({ id })));
    expect(ids[0]).not.to.equal(ids[1]);
    await node.daemon.restart();
  });

  it('cannot reach the memory of a template that is not theirs (S4)', async () => {
    const pod = await node.runSandbox('mine');
    const { pid, template } = (await vmOf(node, pod)) as { pid: number; template: { gid: number } };
    const { memory, state, directory } = await templateOf(node.daemon);
    const groups = /^Groups:\s*(.*)$/m.exec(await readFile(`/proc/${String(pid)}/status`, 'utf8'))?.[1] ?? '';
    expect(groups.trim().split(' ').map(Number)).to.include(template.gid);
    expect(await stat(memory.path)).to.include({ uid: 0, gid: template.gid, mode: 0o100660 });
    expect(await stat(state)).to.include({ uid: 0, mode: 0o100600 });
    expect(await stat(directory)).to.include({ uid: 0, gid: template.gid, mode: 0o040710 });
    // Through the process that holds it not even the group gets there.
    expect(await asVm(pid, `cat ${memory.path}`)).to.match(/Permission denied/);
  });

  it('cannot change the memory of their own template, which they have open (S3)', async () => {
    const pod = await node.runSandbox('mine');
    const { pid } = (await vmOf(node, pod)) as { pid: number };
    const { memory } = await templateOf(node.daemon);
    const own = `/proc/${String(pid)}/fd/10`;
    expect(await stat(own)).to.have.property('ino', memory.inode);
    expect(await asVm(pid, `exec 3<>${own} && echo opened && echo x >&3`)).to.match(
      /^opened[^]*(not permitted|I\/O error)/,
    );
    expect(await rejection(truncate(memory.path, 4096))).to.have.property('code', 'EPERM');
  });

  it('come up when the template’s memory goes while they start, and boot when it has gone', async () => {
    const { memory } = await templateOf(node.daemon);
    const running = node.runSandbox('going');
    await eventually(async () => (await node.vmPids()).length > 0);
    process.kill(memory.pid, 'SIGKILL');
    await node.exec(await node.startContainer(await running, 'c'), 'true');
    expect(await sourceOf(node, await node.runSandbox('gone'))).to.equal('cold');
    await logged(node.daemon, 'a template is refused');
    // The next one waits for a new template.
    expect(await sourceOf(node, await node.runSandbox('next'))).to.equal('clone');
  });

  it('boot when the state is replaced, and QEMU is killed in the middle of loading it', async () => {
    const { state } = await templateOf(node.daemon);
    await writeFile(state, 'no state at all');
    const pod = await node.runSandbox('replaced');
    expect(await sourceOf(node, pod)).to.equal('cold');
    await node.daemon.removeAllPods();
    expect(await sourceOf(node, await node.runSandbox('again'))).to.equal('clone');
    await node.daemon.removeAllPods();

    const running = node.runSandbox('killed');
    await eventually(async () => (await node.vmPids()).length > 0);
    for (const pid of await node.vmPids()) process.kill(pid, 'SIGKILL');
    const killed = await running;
    await node.exec(await node.startContainer(killed, 'c'), 'true');
  });

  it('boot while there is no room for the state of a template, and are cloned again when there is', async () => {
    await builtTemplate(background(), node.daemon.socketPath);
    const { memory } = await templateOf(node.daemon);
    const filler = join(node.daemon.directory, 'run/templates/filler');
    const fill = async (): Promise<void> => {
      const full = await rejection(appendFile(filler, Buffer.alloc(512 * MIB)));
      expect(full).to.have.property('code', 'ENOSPC');
    };
    await fill();
    process.kill(memory.pid, 'SIGKILL');
    expect(await sourceOf(node, await node.runSandbox('refused'))).to.equal('cold');
    // Where the refused one's was.
    await fill();
    expect(await sourceOf(node, await node.runSandbox('unbuilt'))).to.equal('cold');
    await logged(node.daemon, 'a template could not be built; pods boot cold');
    await node.daemon.removeAllPods();
    // Nothing is left of the template that could not be.
    expect(await readdir(join(node.daemon.directory, 'run/templates'))).to.deep.equal(['filler']);
    await rm(filler);
    await builtTemplate(background(), node.daemon.socketPath);
    expect(await sourceOf(node, await node.runSandbox('again'))).to.equal('clone');
  });
});

describe('templates and the pool of a daemon in trouble', () => {
  let node: NodeFixture | undefined;

  afterEach(async () => {
    await node?.stop();
    node = undefined;
  });

  it('have pods wait ready, and leave none of them behind at a shutdown', async () => {
    const fixture = await NodeFixture.start({ config: { vm: 'pool = 1' } });
    node = fixture;
    const { daemon } = node;
    await logged(daemon, 'a template is ready');
    await eventually(async () => (await daemon.leftovers()).some((line) => line.startsWith('run/vm/')));
    let pod = '';
    // A VM that is still on its way into the pool is not waited for.
    await eventually(async () => {
      await daemon.removeAllPods();
      pod = await fixture.runSandbox('pooled');
      return (await sourceOf(fixture, pod)) === 'pool';
    });
    await expectNothingRehearsed(node, await node.startContainer(pod, 'c'));
    // A restart takes it over like any other.
    await daemon.crash();
    await daemon.restart();
    await node.exec(await node.startContainer(pod, 'd'), 'true');
    await daemon.removeAllPods();
    await daemon.stop();
    expect(await daemon.leftovers()).to.deep.equal([]);
  });

  it('are swept when it dies while it builds, and while it fills', async () => {
    node = await NodeFixture.start({ config: { vm: 'pool = 1' } });
    const { daemon } = node;
    await logged(daemon, 'building a template');
    await eventually(async () => (await daemon.leftovers()).some((line) => line.startsWith('process ')));
    await daemon.crash();
    expect(await daemon.leftovers()).not.to.deep.equal([]);
    await daemon.restart();
    await logged(daemon, 'a template is ready');
    await eventually(async () => (await daemon.leftovers()).some((line) => line.startsWith('process ')));
    await daemon.crash();
    const filling = (await daemon.leftovers()).find((line) => line.startsWith('run/vm/')) ?? 'run/vm/none';
    const id = filling.slice('run/vm/'.length, 'run/vm/'.length + 12);
    await daemon.restart();
    // All of it: a sweep that a shutdown cuts off is the next daemon's.
    await eventually(async () => !(await daemon.leftovers()).some((line) => line.includes(id)));
    await daemon.stop();
    expect(await daemon.leftovers()).to.deep.equal([]);
  });

  it('mean a cold boot when there is no memory for one', async () => {
    node = await NodeFixture.start({ config: { vm: 'template_memory = "100MiB"' } });
    const pod = await node.runSandbox('cold');
    expect(await sourceOf(node, pod)).to.equal('cold');
    await logged(node.daemon, 'does not fit in the 100 MiB');
    await node.daemon.removeAllPods();
    expect(await node.daemon.leftovers()).to.deep.equal([]);
  });
});

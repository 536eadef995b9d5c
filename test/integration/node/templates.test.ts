import { readFile, readdir, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect } from 'chai';

import { eventually } from '../../tools/eventually.js';
import type { HerkosdProcess } from '../../tools/herkosd-process.js';
import { NodeFixture } from '../../tools/node-fixture.js';

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

/** The files of the daemon's only template. */
async function templateOf(daemon: HerkosdProcess): Promise<{ memory: string; state: string }> {
  const directory = join(daemon.directory, 'run/templates');
  const [id = ''] = await readdir(directory);
  return { memory: join(directory, id, 'memory'), state: join(directory, id, 'state') };
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
    const pods = await Promise.all(['one', 'two'].map(async (name) => node.runSandbox(name)));
    const seen = await Promise.all(
      pods.map(async (pod) => {
        expect(await sourceOf(node, pod)).to.equal('clone');
        const container = await node.startContainer(pod, 'c');
        const read = async (...command: string[]): Promise<string> => node.exec(container, ...command);
        const clockMs = Math.abs(Number(await read('date', '+%s')) * 1000 - Date.now());
        expect(clockMs, 'the clock').to.be.lessThan(60_000);
        return {
          urandom: await read('head', '-c', '32', '/dev/urandom').then((text) =>
            Buffer.from(text).toString('hex'),
          ),
          // busybox asks getrandom(2) for it.
          random: await read('od', '-An', '-tx1', '-N32', '/dev/random'),
          uuid: await read('cat', '/proc/sys/kernel/random/uuid'),
          bootId: await read('cat', '/proc/sys/kernel/random/boot_id'),
          mac: await read('cat', '/sys/class/net/eth0/address'),
          hostname: await read('hostname'),
        };
      }),
    );
    const [one, two] = seen;
    for (const what of ['urandom', 'random', 'uuid', 'bootId', 'mac'] as const)
      expect(one?.[what], what).not.to.equal(two?.[what]);
  });

  it('cannot reach the memory of a template that is not theirs (S4)', async () => {
    const pod = await node.runSandbox('mine');
    const { pid, template } = (await vmOf(node, pod)) as { pid: number; template: { gid: number } };
    const { memory, state } = await templateOf(node.daemon);
    const groups = /^Groups:\s*(.*)$/m.exec(await readFile(`/proc/${String(pid)}/status`, 'utf8'))?.[1] ?? '';
    expect(groups.trim().split(' ').map(Number)).to.include(template.gid);
    expect(await stat(memory)).to.include({ uid: 0, gid: template.gid, mode: 0o100660 });
    expect(await stat(state)).to.include({ uid: 0, mode: 0o100600 });
    const directory = await stat(join(memory, '..'));
    expect(directory).to.include({ uid: 0, gid: template.gid, mode: 0o040710 });
  });

  it('boot when the template is cut short while they start', async () => {
    const { memory } = await templateOf(node.daemon);
    const running = node.runSandbox('short');
    await eventually(async () => (await node.vmPids()).length > 0);
    await truncate(memory, 4096);
    const pod = await running;
    expect(await sourceOf(node, pod)).to.equal('cold');
    await node.exec(await node.startContainer(pod, 'c'), 'true');
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
    await node.exec(await node.startContainer(pod, 'c'), 'true');
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
    const [filling] = (await daemon.leftovers()).filter((line) => line.startsWith('run/vm/'));
    await daemon.restart();
    await eventually(async () => !(await daemon.leftovers()).includes(filling ?? ''));
    await daemon.stop();
    expect(await daemon.leftovers()).to.deep.equal([]);
  });

  it('mean a cold boot when there is no memory for one', async () => {
    node = await NodeFixture.start({ config: { vm: 'template_memory = "100MiB"' } });
    const pod = await node.runSandbox('cold');
    expect(await sourceOf(node, pod)).to.equal('cold');
    await logged(node.daemon, 'has no room for another template');
    await node.daemon.removeAllPods();
    expect(await node.daemon.leftovers()).to.deep.equal([]);
  });
});

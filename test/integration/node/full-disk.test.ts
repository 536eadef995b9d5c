import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { ServiceError } from '@grpc/grpc-js';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import Long from 'long';

import { background } from '../../../lib/base/context.js';
import { MIB } from '../../../lib/base/units.js';
import { eventually } from '../../tools/eventually.js';
import { buildLayer, pushImage } from '../../tools/image-builder.js';
import { containerStates, NodeFixture } from '../../tools/node-fixture.js';
import { containerConfig, sandboxConfig } from '../../tools/pod-config.js';
import { rejection } from '../../tools/rejection.js';
import { buildTar } from '../../tools/tar-builder.js';

/** Room for what the tests make, beside the 256 MiB that pulls leave free. */
const diskMib = 352;
/** Says its lines until it is told not to. */
const talk =
  'i=0; while [ ! -e /tmp/enough ]; do echo "line $i"; i=$((i+1)); usleep 5000; done; echo "end $i"';

describe('a node with a full disk', () => {
  let node: NodeFixture;

  before(async () => {
    node = await NodeFixture.start({ diskMib });
  });

  after(async () => (node as NodeFixture | undefined)?.stop());

  afterEach(async () => {
    await node.daemon.disk.free();
    if (node.daemon.pid === undefined) await node.daemon.restart();
    await node.daemon.removeAllPods();
    expect(await node.daemon.leftovers()).to.deep.equal([]);
  });

  it('refuses new work and says why, leaves nothing of it behind, and takes it when there is room again', async () => {
    const { client, disk } = node.daemon;
    const big = await pushBigImage();
    const pod = await node.runSandbox('steady');
    const talker = await node.startContainer(pod, 'talker', ['sh', '-c', talk]);
    const waiting = await node.createContainer(pod, 'waiting');
    const before = await node.daemon.leftovers();
    // The next cursor of a log that goes on is tried again and again: it belongs to a container.
    const isNew = (line: string): boolean => !before.includes(line) && !line.endsWith('.json.tmp');
    await disk.fill();

    await refuses(client.runtime('runPodSandbox', { config: sandboxConfig({ name: 'refused' }) }));
    const config = containerConfig('refused', node.image, ['true']);
    await refuses(
      client.runtime('createContainer', { podSandboxId: pod, config, sandboxConfig: sandboxConfig() }),
    );
    await refuses(client.runtime('startContainer', { containerId: waiting }));
    await refuses(client.image('pullImage', { image: { image: big } }));
    expect((await node.daemon.leftovers()).filter(isNew)).to.deep.equal([]);
    // What runs goes on, and can be looked into.
    expect(await node.isReady(pod)).to.equal(true);
    expect(await node.exec(talker, 'echo', 'alive')).to.equal('alive\n');
    await endTalker(talker);
    expect(await hasEnded('steady', 'talker'), 'a log on a full disk').to.equal(false);

    await disk.free();
    await eventually(async () => hasEnded('steady', 'talker'));
    await expectWholeLog('steady', 'talker');
    await client.runtime('startContainer', { containerId: waiting });
    await client.image('pullImage', { image: { image: big } });
    await client.image('removeImage', { image: { image: big } });
    expect(await node.isReady(await node.runSandbox('refused'))).to.equal(true);
  });

  it('fails the writes of a container, and only those', async () => {
    const pod = await node.runSandbox('writer');
    const container = await node.startContainer(pod, 'c');
    const write = async (name: string): Promise<number | null | undefined> => {
      const cmd = ['dd', 'if=/dev/urandom', `of=/${name}`, 'bs=1M', 'count=4', 'conv=fsync'];
      return (await node.daemon.client.runtime('execSync', { containerId: container, cmd })).exitCode;
    };
    await node.daemon.disk.fill();
    expect(await write('first')).to.not.equal(0);
    expect(await node.exec(container, 'echo', 'alive')).to.equal('alive\n');
    await node.daemon.disk.free();
    expect(await write('second')).to.equal(0);
  });

  it('still stops and removes what is there (R3)', async () => {
    const { client, disk } = node.daemon;
    const before = await node.daemon.leftovers();
    const pod = await node.runSandbox('idle');
    const first = await node.startContainer(pod, 'first', ['sh', '-c', talk]);
    await node.startContainer(pod, 'second');
    await disk.fill();
    await client.runtime('stopContainer', { containerId: first, timeout: Long.ONE });
    expect((await node.containerStatus(first)).state).to.equal(containerStates.CONTAINER_EXITED);
    await client.runtime('removeContainer', { containerId: first });
    await client.runtime('stopPodSandbox', { podSandboxId: pod });
    expect(await node.isReady(pod)).to.equal(false);
    await client.runtime('removePodSandbox', { podSandboxId: pod });
    expect(await node.daemon.leftovers()).to.deep.equal(before);
    await disk.fill();
    await client.image('removeImage', { image: { image: node.image } });
    await disk.free();
    await client.image('pullImage', { image: { image: node.image } });
  });

  it('loses neither its pods nor their lines when the daemon is killed meanwhile (R1)', async () => {
    const { disk } = node.daemon;
    const pod = await node.runSandbox('survivor');
    const talker = await node.startContainer(pod, 'talker', ['sh', '-c', talk]);
    const stopped = await node.runSandbox('stopped');
    await eventually(async () => (await linesOf('survivor', 'talker')).length > 0);
    await disk.fill();
    await node.daemon.client.runtime('stopPodSandbox', { podSandboxId: stopped });
    await node.daemon.crash();
    // The stopping of the pod could not be written down; that its machine is gone must be enough.
    await disk.fill();
    await node.daemon.restart();
    expect(await node.isReady(pod)).to.equal(true);
    expect(await node.isReady(stopped)).to.equal(false);
    const saidWhileFull = (await linesOf('survivor', 'talker')).length;
    await disk.free();
    await eventually(async () => (await linesOf('survivor', 'talker')).length > saidWhileFull);
    await endTalker(talker);
    await expectWholeLog('survivor', 'talker');
  });

  /** An image that the disk has room for while it is not full. */
  async function pushBigImage(): Promise<string> {
    const layer = await buildLayer(background(), buildTar([{ name: 'big', content: randomBytes(8 * MIB) }]));
    await pushImage(node.registry.target, 'herkos/big', 'latest', [layer], { Cmd: ['/big'] });
    return `${node.registry.host}/herkos/big:latest`;
  }

  async function linesOf(pod: string, container: string): Promise<string[]> {
    const text = await readFile(join(node.logDirectory(pod), `${container}.log`), 'utf8');
    // What comes after the last newline is being written.
    const lines = text.split('\n').slice(0, -1);
    return lines.map((line) => line.split(' ').slice(1).join(' '));
  }

  async function hasEnded(pod: string, container: string): Promise<boolean> {
    return (await linesOf(pod, container)).at(-1)?.startsWith('stdout F end') === true;
  }

  /** Each line that the talker said is there once, in order. */
  async function expectWholeLog(pod: string, container: string): Promise<void> {
    const said = await linesOf(pod, container);
    const count = said.length - 1;
    const lines = Array.from({ length: count }, (_, index) => `stdout F line ${String(index)}`);
    expect(said).to.deep.equal([...lines, `stdout F end ${String(count)}`]);
  }

  async function endTalker(containerId: string): Promise<void> {
    // Its exit code says nothing: the container may end, and take this command along, before it does.
    const cmd = ['touch', '/tmp/enough'];
    await node.daemon.client.runtime('execSync', { containerId, cmd });
    const exited = containerStates.CONTAINER_EXITED;
    await eventually(async () => (await node.containerStatus(containerId)).state === exited);
  }
});

/** The class by which a kubelet sees what it is, and words by which its operator does. */
async function refuses(call: Promise<unknown>): Promise<void> {
  const { code, details } = (await rejection(call)) as ServiceError;
  expect(status[code], details).to.equal('RESOURCE_EXHAUSTED');
  expect(details).to.match(/\/state\/.*; make room/);
}

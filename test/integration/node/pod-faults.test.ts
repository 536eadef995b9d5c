import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, readFile, rename } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { expect } from 'chai';
import Long from 'long';

import { eventually } from '../../tools/eventually.js';
import { NodeFixture, containerStates } from '../../tools/node-fixture.js';

const guestRoot = resolve(import.meta.dirname, '../../../../guest/out/root.erofs');

describe('a node with pods in trouble', () => {
  let node: NodeFixture;

  before(async () => {
    node = await NodeFixture.start({ config: { pod: 'guest_timeout_seconds = 10' } });
  });

  after(async () => node.stop());

  afterEach(async () => {
    if (node.daemon.pid === undefined) await node.daemon.restart();
    await node.daemon.removeAllPods();
    expect(await node.daemon.leftovers()).to.deep.equal([]);
  });

  it('sees at once that a VM died, and ends what was in it (R4)', async () => {
    const pod = await node.runSandbox('killed');
    const container = await node.startContainer(pod, 'c');
    for (const pid of await node.vmPids()) process.kill(pid, 'SIGKILL');
    await eventually(async () => !(await node.isReady(pod)));
    const status = await node.containerStatus(container);
    expect(status.state).to.equal(containerStates.CONTAINER_EXITED);
    expect(status.exitCode).to.be.greaterThan(0);
    expect(Number(status.finishedAt)).to.be.greaterThan(0);
  });

  it('stops and removes a pod whose guest is frozen (R3)', async () => {
    const pod = await node.runSandbox('frozen');
    const container = await node.startContainer(pod, 'c');
    const pids = await node.vmPids();
    for (const pid of pids) process.kill(pid, 'SIGSTOP');
    const { client } = node.daemon;
    await client.runtime('stopContainer', { containerId: container, timeout: Long.ONE });
    expect((await node.containerStatus(container)).state).to.equal(containerStates.CONTAINER_EXITED);
    await client.runtime('stopPodSandbox', { podSandboxId: pod });
    expect(await node.isReady(pod)).to.equal(false);
    await client.runtime('removePodSandbox', { podSandboxId: pod });
    expect(await node.vmPids()).to.deep.equal([]);
  });

  it('keeps every log line once over crashes of the daemon and a rotation (R1)', async () => {
    const pod = await node.runSandbox('talker');
    const lines = 6_000;
    const script = `i=0; while [ $i -lt ${String(lines)} ]; do echo "line $i"; echo "error $i" >&2; i=$((i+1)); done`;
    const container = await node.startContainer(pod, 'talk', ['sh', '-c', script]);
    const path = join(node.logDirectory('talker'), 'talk.log');
    for (let crash = 0; crash < 3; crash += 1) {
      await delay(400);
      await node.daemon.crash();
      await delay(150);
      if (crash === 1) await rename(path, `${path}.1`);
      await node.daemon.restart();
      if (crash === 1)
        await node.daemon.client.runtime('reopenContainerLog', { containerId: container }).catch(ifEnded);
    }
    await eventually(
      async () => (await node.containerStatus(container)).state === containerStates.CONTAINER_EXITED,
    );
    const directory = node.logDirectory('talker');
    const names = (await readdir(directory)).sort().reverse();
    const text = (await Promise.all(names.map(async (name) => readFile(join(directory, name), 'utf8')))).join(
      '',
    );
    for (const [stream, word] of [
      ['stdout', 'line'],
      ['stderr', 'error'],
    ] as const) {
      const said = text.split('\n').flatMap((line) => {
        const [, from, tag, ...rest] = line.split(' ');
        return from === stream ? [`${tag ?? ''} ${rest.join(' ')}`] : [];
      });
      expect(said).to.deep.equal(Array.from({ length: lines }, (_, index) => `F ${word} ${String(index)}`));
    }
  });

  it('does not let root in a guest change an image or the guest itself on the host (S3)', async () => {
    const before = await sharedDigests();
    const pod = await node.runSandbox('vandal');
    const privileged = { linux: { securityContext: { privileged: true } } };
    const container = await node.startContainer(pod, 'vandal', ['sleep', '3600'], privileged);
    const script = [
      'cd /dev; n=0; written=0',
      'for block in /sys/class/block/pmem*; do',
      '  busybox mknod dev$n b $(cat $block/dev | busybox tr : " ")',
      '  dd if=/dev/zero of=dev$n bs=1M count=64 conv=notrunc,fsync 2>/tmp/dd$n; grep -q "^[1-9][0-9]*+0 records out" /tmp/dd$n && written=$((written+1)); n=$((n+1))',
      'done; echo $n $written',
    ].join('\n');
    // The root image and both layers of the example, each to its end; what the guest does to itself is its own affair.
    const [devices, written] = (await node.exec(container, 'sh', '-c', script)).split(' ').map(Number);
    expect(devices).to.equal(3);
    expect(written, 'devices that took the writes, or this test proves nothing').to.equal(3);
    expect(await sharedDigests()).to.deep.equal(before);
  });

  /** Digests of every file that VMs share. */
  async function sharedDigests(): Promise<Record<string, string>> {
    const layers = join(node.daemon.directory, 'state/image/layers');
    const paths = [guestRoot, ...(await readdir(layers)).map((name) => join(layers, name))];
    const digests: Record<string, string> = {};
    for (const path of paths) {
      const hash = createHash('sha256');
      for await (const part of createReadStream(path) as AsyncIterable<Buffer>) hash.update(part);
      digests[path] = hash.digest('hex');
    }
    return digests;
  }
});

/** The container may have ended before its log could be reopened. */
function ifEnded(error: unknown): void {
  if (!String(error).includes('FAILED_PRECONDITION')) throw error;
}

import { readFile } from 'node:fs/promises';

import { expect } from 'chai';

import { eventually } from '../../tools/eventually.js';
import { NodeFixture } from '../../tools/node-fixture.js';

const written = 96;

async function residentMib(pid: number): Promise<number> {
  const status = await readFile(`/proc/${String(pid)}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) / 1024;
}

describe('memory that a guest does not use', () => {
  let node: NodeFixture;

  before(async () => {
    node = await NodeFixture.start({ config: { vm: 'templates = false' } });
  });

  after(async () => node.stop());

  it('comes back to the host', async () => {
    const pod = await node.runSandbox('idle');
    const container = await node.startContainer(pod, 'c');
    const [pid = 0] = await node.vmPids();
    const before = await residentMib(pid);
    const file = ['if=/dev/zero', 'of=/dev/shm/file', 'bs=1048576', `count=${String(written / 2)}`];
    await node.exec(container, 'dd', ...file);
    await node.exec(container, 'sh', '-c', 'cat /dev/shm/file > /tmp/file; sync; rm /tmp/file');
    expect(await residentMib(pid)).to.be.greaterThan(before + written / 2 - 16);
    const most = await residentMib(pid);
    await node.exec(container, 'rm', '/dev/shm/file');
    await eventually(async () => (await residentMib(pid)) < most - written / 4);
  });
});

/** That the guest sees what the driver says it has plugged. */
import { once } from 'node:events';
import { chmod, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';

import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { newId } from '../../../lib/base/ids.js';
import type { Guest } from '../../../lib/pod/ports.js';
import { eventually } from '../../tools/eventually.js';
import { guestVm, runShell, startPeeking } from '../guest/guest-vm.js';
import type { GuestVm } from '../guest/guest-vm.js';

const ctx = background();
const bootMib = 192;
const vcpusMax = 3;
/** Of what is plugged, the kernel keeps descriptions of pages for itself. */
const usableShare = 0.9;
const keptMibMax = 8;
const portName = 'share.0';

describe('a VM that grows', () => {
  let vm: GuestVm;
  let guest: Guest;
  let containerId: string;

  before(async () => {
    vm = await guestVm({ vcpusMax });
    guest = await vm.connect();
    containerId = await startPeeking(vm, guest);
  });

  after(async () => {
    await vm.cleanUp();
  });

  /** Standard output of a shell script, whose working directory is the root of the guest. */
  const run = async (script: string): Promise<string> =>
    (await runShell(vm, guest, containerId, `cd /proc/1/root && ${script}`)).trim();
  const memTotalMib = async (): Promise<number> => {
    const kib = /^MemTotal: +(\d+) kB$/m.exec(await run('cat proc/meminfo'))?.[1];
    return Number(kib) / 1024;
  };

  it('gives memory and takes it back', async () => {
    const before = await memTotalMib();
    expect(before).to.be.lessThan(bootMib);
    expect(await vm.vm.resize(ctx, { vcpus: 1, memoryMib: bootMib + 768 })).to.have.property(
      'memoryMib',
      bootMib + 768,
    );
    expect(await memTotalMib()).to.be.within(before + 768 * usableShare, before + 768);
    await vm.vm.resize(ctx, { vcpus: 1, memoryMib: bootMib + 100 });
    expect(await memTotalMib()).to.be.within(before + 100 * usableShare, before + 100);
    const kept = await vm.vm.resize(ctx, { vcpus: 1, memoryMib: bootMib });
    // A block that the kernel itself has taken from does not come back.
    expect(kept.memoryMib).to.be.within(bootMib, bootMib + keptMibMax);
    // The kernel frees a little of its own meanwhile.
    expect(await memTotalMib()).to.be.closeTo(before, keptMibMax);
  });

  it('has more processors once the agent has brought them online', async () => {
    // QEMU without KVM has not always room for one more.
    await eventually(async () => {
      const { vcpus } = await vm.vm.resize(ctx, { vcpus: vcpusMax, memoryMib: bootMib });
      return vcpus === vcpusMax;
    });
    await guest.onlineCpus(ctx, vcpusMax);
    expect(await run('cat sys/devices/system/cpu/online')).to.equal(`0-${String(vcpusMax - 1)}`);
  });

  it('talks to the host through a port, and again when the listener has come back', async () => {
    const path = `/tmp/hkp-${newId().slice(0, 16)}`;
    let { server, first } = await listen(path);
    try {
      await vm.vm.plugPort(ctx, newId(), portName, path);
      const device = await eventuallyPort();
      await exchange(await first, device, 'one');
      (await first).destroy();
      server.close();
      await rm(path, { force: true });
      ({ server, first } = await listen(path));
      await exchange(await first, device, 'two');
      (await first).destroy();
    } finally {
      server.close();
      await rm(path, { force: true });
    }
  });

  it('no longer has a port that was unplugged', async () => {
    const owner = newId();
    await vm.vm.plugPort(ctx, owner, 'share.1', '/nowhere/socket');
    await eventually(async () => (await run('cat sys/class/virtio-ports/*/name')).includes('share.1'));
    await vm.vm.unplugGone(ctx, owner);
    await eventually(async () => !(await run('cat sys/class/virtio-ports/*/name')).includes('share.1'));
  });

  const eventuallyPort = async (): Promise<string> => {
    let found = '';
    await eventually(async () => {
      const names = await run('for p in sys/class/virtio-ports/*; do echo "$p $(cat $p/name)"; done');
      found = /sys\/class\/virtio-ports\/(\S+) share\.0$/m.exec(names)?.[1] ?? '';
      return found !== '';
    });
    return found;
  };

  /** Each side hears the other, after it has spoken itself. */
  const exchange = async (socket: Socket, device: string, word: string): Promise<void> => {
    socket.write(`host ${word}\n`);
    const heard = once(socket, 'data');
    const said = await run(`exec 3<>dev/${device}; echo guest ${word} >&3; head -n 1 <&3`);
    expect(said).to.equal(`host ${word}`);
    expect(String((await heard)[0])).to.equal(`guest ${word}\n`);
  };
});

/** `first`: the first connection. Everybody may connect, so the VM's user too. */
async function listen(path: string): Promise<{ server: Server; first: Promise<Socket> }> {
  const server = createServer();
  const first = new Promise<Socket>((resolve) => {
    server.once('connection', resolve);
  });
  server.listen(path);
  await once(server, 'listening');
  await chmod(path, 0o666);
  return { server, first };
}

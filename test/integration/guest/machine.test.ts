/** What makes a guest a machine of its own, and what lets it grow. */
import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { AgentConnector } from '../../../lib/drivers/guest/connector.js';
import type { Guest } from '../../../lib/pod/ports.js';
import { eventually } from '../../tools/eventually.js';
import { testMachineId } from '../../tools/machine-id.js';
import { rejection } from '../../tools/rejection.js';
import { guestVm, runShell, startPeeking } from './guest-vm.js';
import type { GuestVm } from './guest-vm.js';

const ctx = background();
const otherMachineId = '6'.repeat(32);
const mib = 1024 * 1024;
const names = { hostname: 'web-0', hosts: '', resolvConf: '', sysctls: {}, shmBytes: 0 };

describe('the guest as a machine', () => {
  let vm: GuestVm;
  let guest: Guest;
  let containerId: string;

  before(async () => {
    vm = await guestVm();
    guest = await vm.connect();
    containerId = await startPeeking(vm, guest);
  });

  after(async () => {
    await vm.cleanUp();
  });

  /** Standard output of a shell script, whose working directory is the root of the guest. */
  const run = async (script: string): Promise<string> =>
    runShell(vm, guest, containerId, `cd /proc/1/root && ${script}`);
  /** The first groups of its addresses; the kernel's lines are address, index, prefix length, scope, flags, name. */
  const ipv6Of = async (card: string): Promise<string[]> => {
    const lines = (await run('cat proc/1/net/if_inet6')).split('\n');
    return lines.filter((line) => line.endsWith(card)).map((line) => line.slice(0, 4));
  };
  const limitOf = async (file: string): Promise<string> =>
    (await run(`cat sys/fs/cgroup/herkos/${containerId}/${file}`)).trim();
  const update = (resources: unknown): Promise<void> =>
    guest.updateContainer(ctx, containerId, Buffer.from(JSON.stringify(resources)));

  it('has the id that the host gave it, and keeps it', async () => {
    expect(await run('cat etc/machine-id')).to.equal(`${testMachineId}\n`);
    await guest.close();
    await guest.lost;
    const refused = await rejection(new AgentConnector().connect(ctx, vm.vm.agentSocketPath, otherMachineId));
    expect(refused).to.have.property('class', 'InvalidArgument');
    expect(refused).to.have.property('message').that.contains(testMachineId);
    guest = await vm.connect();
    expect(await run('cat etc/machine-id')).to.equal(`${testMachineId}\n`);
  });

  it('limits a running container anew, and leaves what is not named', async () => {
    expect(await limitOf('memory.max')).to.equal('max');
    await update({ memory: { limit: 64 * mib }, pids: { limit: 100 } });
    expect(await limitOf('memory.max')).to.equal(String(64 * mib));
    await update({ cpu: { quota: 50_000, period: 100_000, shares: 512 } });
    expect(await limitOf('cpu.max')).to.equal('50000 100000');
    expect(await limitOf('memory.max')).to.equal(String(64 * mib));
    expect(await limitOf('pids.max')).to.equal('100');
    await update({ memory: { limit: 128 * mib } });
    expect(await limitOf('memory.max')).to.equal(String(128 * mib));
    await update({
      memory: { limit: 64 * mib, swap: 96 * mib },
      unified: { 'memory.high': String(48 * mib) },
    });
    expect(await limitOf('memory.swap.max')).to.equal(String(32 * mib));
    expect(await limitOf('memory.high')).to.equal(String(48 * mib));
    await update({ memory: { limit: -1, swap: -1 }, cpu: { quota: -1, period: 100_000, shares: 1024 } });
    expect(await limitOf('memory.max')).to.equal('max');
    expect(await limitOf('memory.swap.max')).to.equal('max');
    expect(await limitOf('cpu.max')).to.equal('max 100000');
  });

  it('says why a limit cannot be', async () => {
    const cpu = await limitOf('cpu.max');
    for (const resources of [
      { cpu: { quota: 1, period: 100_000 } },
      { cpu: { cpus: '900' } },
      { memory: { limit: 'much' } },
      { memory: { swappiness: 60 } },
      { unified: { 'memory.max': 'much' } },
    ]) {
      const error = await rejection(update(resources));
      expect(error, JSON.stringify(resources)).to.have.property('class', 'InvalidArgument');
    }
    expect(await limitOf('cpu.max')).to.equal(cpu);
  });

  it("has the host's time once its pod is set up, however long it took to boot", async () => {
    const before = Date.now();
    await guest.setupPod(ctx, { ...names, interfaces: [] });
    // The clock in seconds and microseconds: busybox's date knows seconds only.
    const [s, us] =
      (await run('adjtimex')).match(/tv_[us]+ec: +[0-9]+/g)?.map((line) => line.split(': ')[1]) ?? [];
    expect(Number(s) * 1000 + Number(us) / 1000).to.be.within(before, Date.now());
  });

  it('speaks IPv6 where the network has given it an address, and follows no router', async () => {
    const [mac, ip] = ['02:00:00:00:00:0a', '2001:db8::b'];
    await vm.vm.plugNic(ctx, mac);
    const card = { name: 'eth0', mac, mtu: 1400, addresses: [{ ip, prefixLength: 64 }], routes: [] };
    await guest.setupPod(ctx, { ...names, interfaces: [card] });
    // The kernel gives the link-local one by itself, once it has noticed that the link works.
    await eventually(async () => (await ipv6Of('eth0')).length === 2);
    expect(await ipv6Of('eth0')).to.have.members(['2001', 'fe80']);
    expect(await run('cat sys/class/net/eth0/mtu')).to.equal('1400\n');
    expect(await run('cat proc/sys/net/ipv6/conf/eth0/accept_ra')).to.equal('0\n');
  });

  it('is ready for memory and processors that are plugged, and for a balloon', async () => {
    expect(await run('cat sys/devices/system/memory/auto_online_blocks')).to.equal('online\n');
    const parameters = 'sys/module/memory_hotplug/parameters';
    expect(await run(`cat ${parameters}/online_policy`)).to.equal('auto-movable\n');
    const drivers = await run('ls sys/bus/virtio/drivers sys/bus/acpi/drivers');
    expect(drivers.split('\n')).to.include.members(['virtio_balloon', 'virtio_mem', 'vmgenid']);
  });
});

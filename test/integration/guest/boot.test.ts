import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';

import { expect } from 'chai';

import type { LayerDeviceKind } from '../../../lib/drivers/qemu/settings.js';
import type { Guest } from '../../../lib/pod/ports.js';
import { guestVm, runShell, startPeeking } from './guest-vm.js';
import type { GuestVm } from './guest-vm.js';

const kinds: readonly LayerDeviceKind[] = ['virtio-pmem', 'nvdimm'];

for (const layerDevice of kinds)
  describe(`the guest, with layers as ${layerDevice}`, () => {
    let vm: GuestVm;
    let guest: Guest;
    let containerId: string;

    before(async () => {
      vm = await guestVm({ layerDevice });
      guest = await vm.connect();
      containerId = await startPeeking(vm, guest);
    });

    after(async () => {
      await vm.cleanUp();
    });

    /** Standard output of a shell script in the container. */
    const run = async (script: string): Promise<string> => runShell(vm, guest, containerId, script);

    it('maps its root and its layers straight from the host', async () => {
      const mounts = (await run('cat /proc/1/mounts')).split('\n').filter((line) => line.includes(' erofs '));
      expect(mounts).to.have.lengthOf(2);
      expect(mounts[0]).to.match(/^\/dev\/pmem\d \/ erofs ro,/);
      for (const line of mounts) expect(line).to.contain('dax=always');
    });

    it('does not read a layer into memory of its own', async () => {
      const cached = async (): Promise<number> =>
        Number(/^Cached: +(\d+) kB/m.exec(await run('cat /proc/meminfo'))?.[1]);
      await run('cat /bin/busybox | wc -c');
      const before = await cached();
      expect(Number(await run('cat /bin/busybox /bin/busybox | wc -c'))).to.be.greaterThan(1_000_000);
      expect((await cached()) - before).to.be.lessThan(512);
    });

    it('writes to the disk of the container and not to its layers', async () => {
      await run('echo kept > /root/file && rm /bin/wc && echo over > /bin/wc && sync');
      expect(await run('cat /root/file')).to.equal('kept\n');
    });

    it('cannot change a layer or its own root, even as root of the guest', async () => {
      const files = [vm.layer.path, vm.guestRoot];
      const before = await Promise.all(files.map(digest));
      const script =
        'cd /sys/class/block && for disk in pmem*; do IFS=: read major minor < $disk/dev; ' +
        'mknod /tmp/$disk b $major $minor && { dd if=/dev/zero of=/tmp/$disk bs=1M count=32 conv=fsync; echo $disk; }; done';
      const attacked = (await run(`${script} 2>/dev/null`)).trim().split('\n');
      expect(attacked).to.have.lengthOf(2);
      expect(await Promise.all(files.map(digest))).to.deep.equal(before);
    });
  });

async function digest(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
}

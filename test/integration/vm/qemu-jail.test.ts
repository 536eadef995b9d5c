import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, readdir, readlink, stat, writeFile } from 'node:fs/promises';

import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { newId } from '../../../lib/base/ids.js';
import type { RunningVm } from '../../../lib/vm/ports.js';
import type { QemuHarness } from './qemu-harness.js';
import { qemuHarness } from './qemu-harness.js';

const ctx = background();

/** A field of /proc/PID/status. */
async function statusField(pid: number, name: string): Promise<string> {
  const text = await readFile(`/proc/${String(pid)}/status`, 'utf8');
  return new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(text)?.[1] ?? 'missing';
}

/** Path and whether it may be written to, for every open file of a process. */
async function openFiles(pid: number): Promise<{ readonly path: string; readonly isWritable: boolean }[]> {
  const found: { readonly path: string; readonly isWritable: boolean }[] = [];
  for (const fd of await readdir(`/proc/${String(pid)}/fd`)) {
    const path = await readlink(`/proc/${String(pid)}/fd/${fd}`);
    const info = await readFile(`/proc/${String(pid)}/fdinfo/${fd}`, 'utf8');
    // The access mode is in the last two bits of the octal flags: 0 reads, 1 writes, 2 both.
    const mode = Number.parseInt(/^flags:\s*(\d+)/m.exec(info)?.[1] ?? '7', 8) & 3;
    found.push({ path, isWritable: mode !== 0 });
  }
  return found;
}

for (const layerDevice of ['virtio-pmem', 'nvdimm'] as const)
  describe(`the jail of a live QEMU, layers as ${layerDevice}`, () => {
    let harness: QemuHarness;
    let vm: RunningVm;
    let uid: number;

    before(async () => {
      harness = await qemuHarness({ layerDevice });
      const spec = await harness.newSpec();
      uid = spec.record.uid;
      vm = await harness.running(spec);
    });

    after(async () => {
      await harness.cleanUp();
    });

    it('has a user of its own, no capability, no way to gain one, and a system call filter (S2)', async () => {
      const four = Array.from({ length: 4 }, () => String(uid)).join('\t');
      expect(await statusField(vm.pid, 'Uid')).to.equal(four);
      expect(await statusField(vm.pid, 'Gid')).to.equal(four);
      expect(await statusField(vm.pid, 'Groups')).to.match(
        new RegExp(`^${String(harness.settings.sharedGid)}\\s*$`),
      );
      for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'])
        expect(await statusField(vm.pid, set), set).to.match(/^0+$/);
      expect(await statusField(vm.pid, 'NoNewPrivs')).to.equal('1');
      expect(await statusField(vm.pid, 'Seccomp')).to.equal('2');
      const threads = await readdir(`/proc/${String(vm.pid)}/task`);
      for (const thread of threads) {
        const text = await readFile(`/proc/${String(vm.pid)}/task/${thread}/status`, 'utf8');
        expect(text).to.match(/^Seccomp:\s*2$/m);
      }
    });

    it('sees another network, other mounts and its own /dev', async () => {
      for (const namespace of ['net', 'mnt'])
        expect(await readlink(`/proc/${String(vm.pid)}/ns/${namespace}`)).not.to.equal(
          await readlink(`/proc/self/ns/${namespace}`),
        );
      const root = `/proc/${String(vm.pid)}/root/dev`;
      expect((await readdir(root)).sort()).to.deep.equal(['kvm', 'net', 'null', 'random', 'urandom', 'zero']);
      expect((await stat(`${root}/net/tun`)).mode & 0o7).to.equal(0);
    });

    it('writes no core, locks no memory and is a session of its own', async () => {
      const limits = await readFile(`/proc/${String(vm.pid)}/limits`, 'utf8');
      expect(limits).to.match(/^Max core file size\s+0\s+0/m);
      expect(limits).to.match(/^Max locked memory\s+0\s+0/m);
      const sessionOf = (text: string): string | undefined =>
        text.slice(text.lastIndexOf(')') + 2).split(' ')[3];
      expect(sessionOf(await readFile(`/proc/${String(vm.pid)}/stat`, 'utf8'))).to.equal(String(vm.pid));
    });

    it("knows nothing of the daemon's environment", async () => {
      const environment = await readFile(`/proc/${String(vm.pid)}/environ`, 'utf8');
      expect(
        environment
          .split('\0')
          .filter((word) => word !== '')
          .map((word) => word.split('=')[0]),
      ).to.have.members(['PATH', 'LANG', 'MALLOC_ARENA_MAX']);
    });

    it('owns nothing in its run directory once the guest runs', async () => {
      const directory = vm.agentSocketPath.slice(0, vm.agentSocketPath.lastIndexOf('/'));
      const info = await stat(directory);
      expect({ uid: info.uid, mode: info.mode & 0o777 }).to.deep.equal({ uid: 0, mode: 0o700 });
    });

    it('opens images for reading and only its disk for writing (S3)', async () => {
      const [layer, disk] = [await harness.newLayer(), await harness.newDisk()];
      await vm.plugLayers(ctx, newId(), [layer]);
      await vm.plugDisk(ctx, newId(), disk);
      const files = await openFiles(vm.pid);
      const modes = (path: string | undefined): boolean[] =>
        files.filter((file) => file.path === path).map(({ isWritable }) => isWritable);
      expect(modes(layer.path)).to.deep.equal([false]);
      expect(modes(harness.settings.guest.root)).to.deep.equal([false]);
      expect(modes(disk)).to.include(true);
      const shared = (await readFile(`/proc/${String(vm.pid)}/maps`, 'utf8'))
        .split('\n')
        .filter((line) => line.includes(layer.path) || line.endsWith('root.erofs'));
      expect(shared).to.have.length.greaterThan(1);
      for (const line of shared) expect(line.split(' ')[1]).to.equal('r--s');
      const info = await stat(disk);
      expect({ uid: info.uid, mode: info.mode & 0o777 }).to.deep.equal({ uid, mode: 0o600 });
    });

    it('is not mistaken for what another user makes look like it', async () => {
      const id = newId();
      const name = `guest=herkos-${harness.settings.instance}-${id},process=x`;
      const nobody = ['--reuid', '65534', '--clear-groups'];
      const imitation = spawn('setpriv', [...nobody, 'sh', '-c', 'echo up; read end', 'sh', '-name', name]);
      try {
        await once(imitation.stdout, 'data');
        expect(await readFile(`/proc/${String(imitation.pid)}/cmdline`, 'utf8')).to.include(id);
        expect(await harness.driver.list(ctx)).not.to.include(id);
      } finally {
        imitation.stdin.end();
        await once(imitation, 'exit');
      }
    });
  });

describe('what keeps QEMU from starting', () => {
  let harness: QemuHarness;

  afterEach(async () => {
    await harness.cleanUp();
  });

  const failing = async (overrides: Parameters<typeof qemuHarness>[0]): Promise<string> => {
    harness = await qemuHarness(overrides);
    const spec = await harness.newSpec();
    try {
      await harness.driver.start(ctx, spec);
    } catch (error) {
      expect(await harness.driver.list(ctx)).to.deep.equal([]);
      expect(await readdir(`${harness.settings.runDir}/vm`)).to.deep.equal([]);
      return error instanceof Error ? error.message : 'not an error';
    }
    throw new Error('QEMU started');
  };

  it('is told in its own words when the program is missing', async () => {
    expect(await failing({ binary: '/nowhere/qemu' })).to.include('/nowhere/qemu');
  });

  it('is told in its own words when it refuses its options', async () => {
    const { guest } = (harness = await qemuHarness()).settings;
    await harness.cleanUp();
    const kernel = '/nowhere/vmlinux';
    expect(await failing({ guest: { ...guest, kernel } })).to.include(kernel);
  });

  it('is told when the namespace is missing', async () => {
    expect(await failing({ netnsDirectory: '/nowhere' })).to.include('/nowhere');
  });

  it('does not grow its log without end', async () => {
    harness = await qemuHarness();
    const vm = await harness.running();
    const log = vm.agentSocketPath.replace(/agent$/, 'log');
    for (let round = 0; round < 4; round += 1) await writeFile(log, 'x'.repeat(1024 * 1024), { flag: 'a' });
    await vm.plugNic(ctx, '02:00:00:00:00:01');
    let left = (await stat(log)).size;
    for (let look = 0; look < 1000 && left > 1024 * 1024; look += 1) left = (await stat(log)).size;
    expect(left).to.be.at.most(1024 * 1024);
    harness.killProcess(vm.pid);
    expect((await vm.exited).lastWords.length).to.be.lessThan(5000);
  });
});

import { expect } from 'chai';

import { background, withTimeout } from '../../../../lib/base/context.js';
import { HostCgroups } from '../../../../lib/drivers/cgroup/cgroup-factory.js';
import { findHierarchies } from '../../../../lib/drivers/cgroup/hierarchies.js';
import { weightOf } from '../../../../lib/drivers/cgroup/limits.js';
import { parentDirectory } from '../../../../lib/drivers/cgroup/parent.js';
import { FakeCgroupFs } from '../../../fakes/vm-cgroup-fs.js';
import { rejection } from '../../../tools/rejection.js';

const id = 'ab'.repeat(32);
const ctx = background();
const limits = {
  memoryBytesMax: 4096,
  cpuShares: 1024,
  cpuQuotaUs: 50_000,
  cpuPeriodUs: 100_000,
  pidsMax: 99,
};

function v1Line(controllers: string, at = controllers): string {
  return `32 31 0:29 / /sys/fs/cgroup/${at} rw,relatime - cgroup cgroup rw,${controllers}`;
}

const hybrid = [
  '31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755',
  v1Line('cpu,cpuacct', 'cpu\\054cpuacct'),
  v1Line('memory'),
  v1Line('cpuset'),
  v1Line('freezer'),
  v1Line('name=systemd', 'systemd'),
  '41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate',
].join('\n');
const unified = '41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw';

function hybridFs(): FakeCgroupFs {
  return new FakeCgroupFs([
    { mountpoint: '/sys/fs/cgroup/cpu,cpuacct', version: 1, controllers: ['cpu', 'cpuacct'] },
    { mountpoint: '/sys/fs/cgroup/memory', version: 1, controllers: ['memory'] },
    { mountpoint: '/sys/fs/cgroup/cpuset', version: 1, controllers: ['cpuset'] },
    { mountpoint: '/sys/fs/cgroup/unified', version: 2, controllers: ['pids'] },
  ]);
}

function unifiedFs(): FakeCgroupFs {
  return new FakeCgroupFs([
    { mountpoint: '/sys/fs/cgroup', version: 2, controllers: ['cpuset', 'cpu', 'io', 'memory', 'pids'] },
  ]);
}

function factory(fs: FakeCgroupFs, mountinfo: string): HostCgroups {
  return new HostCgroups({ defaultParent: '/herkos' }, fs, () => Promise.resolve(mountinfo));
}

describe('cgroup hierarchies', () => {
  it('finds v1, v2 and both', () => {
    expect(findHierarchies(hybrid).map(({ mountpoint }) => mountpoint)).to.deep.equal([
      '/sys/fs/cgroup/cpu,cpuacct',
      '/sys/fs/cgroup/memory',
      '/sys/fs/cgroup/cpuset',
      '/sys/fs/cgroup/unified',
    ]);
    expect(findHierarchies(unified)).to.have.length(1);
    expect(findHierarchies(`${v1Line('memory')}\n${v1Line('memory', 'again')}`)).to.have.length(1);
  });

  it('says so when there is none', () => {
    expect(() => findHierarchies('31 23 0:28 / / rw - ext4 /dev/vda rw')).to.throw('no cgroup hierarchy');
  });
});

describe('cgroup parents', () => {
  it('takes both forms of the kubelet', () => {
    expect(parentDirectory('/kubepods/burstable/pod1-2')).to.equal('/kubepods/burstable/pod1-2');
    expect(parentDirectory('kubepods-burstable-pod1_2.slice')).to.equal(
      '/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice',
    );
    expect(parentDirectory('/kubepods.slice')).to.equal('/kubepods.slice');
    expect(parentDirectory('/a.slice/a-b.slice/')).to.equal('/a.slice/a-b.slice');
    expect(parentDirectory('-.slice')).to.equal('');
    expect(parentDirectory('/')).to.equal('');
  });

  it('refuses what leads elsewhere', () => {
    for (const parent of [
      '..',
      '/a/../..',
      '/./a',
      'relative/path',
      'relative',
      '',
      'a--b.slice',
      '-a.slice',
      '.slice',
      '/a\nb',
      '/a\0b',
      '/a\\x2d',
      '/x'.repeat(600),
    ])
      expect(() => parentDirectory(parent), JSON.stringify(parent)).to.throw('cgroup parent');
  });
});

describe('host cgroups', () => {
  it('maps shares to weights at both ends', () => {
    expect([2, 1024, 262_144, 0, 1e9].map(weightOf)).to.deep.equal([1, 39, 10_000, 1, 10_000]);
  });

  it('limits in every hierarchy of a hybrid host', async () => {
    const fs = hybridFs();
    const { procsFiles } = await factory(fs, hybrid).create(ctx, '/kubepods/pod1', id, limits);
    const below = `kubepods/pod1/herkos-${id}`;
    expect(procsFiles).to.deep.equal(
      ['cpu,cpuacct', 'memory', 'cpuset', 'unified'].map(
        (at) => `/sys/fs/cgroup/${at}/${below}/cgroup.procs`,
      ),
    );
    const value = (path: string): string | undefined => fs.files.get(`/sys/fs/cgroup/${path}`);
    expect(value(`memory/${below}/memory.limit_in_bytes`)).to.equal('4096');
    expect(value(`cpu,cpuacct/${below}/cpu.shares`)).to.equal('1024');
    expect(value(`cpu,cpuacct/${below}/cpu.cfs_quota_us`)).to.equal('50000');
    expect(value(`cpuset/${below}/cpuset.cpus`)).to.equal('0-1');
    // The pids controller is v2's on this host.
    expect(value(`unified/${below}/pids.max`)).to.equal('99');
  });

  it('passes controllers down on a v2 host', async () => {
    const fs = unifiedFs();
    await factory(fs, unified).create(ctx, 'kubepods-pod1.slice', id, limits);
    const directory = `/sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice/herkos-${id}`;
    expect(fs.files.get(`${directory}/memory.max`)).to.equal('4096');
    expect(fs.files.get(`${directory}/cpu.max`)).to.equal('50000 100000');
    expect(fs.files.get(`${directory}/cpu.weight`)).to.equal('39');
    expect(fs.files.get(`${directory}/pids.max`)).to.equal('99');
  });

  it('changes the limits of either version', async () => {
    for (const [fs, mountinfo, directory, file] of [
      [hybridFs(), hybrid, '/sys/fs/cgroup/memory/p', 'memory.limit_in_bytes'],
      [unifiedFs(), unified, '/sys/fs/cgroup/p', 'memory.max'],
    ] as const) {
      const cgroups = factory(fs, mountinfo);
      await cgroups.create(ctx, '/p', id, limits);
      await cgroups.setLimits(ctx, '/p', id, { memoryBytesMax: 8192 });
      expect(fs.files.get(`${directory}/herkos-${id}/${file}`)).to.equal('8192');
    }
  });

  it('passes controllers down again that systemd has switched off since', async () => {
    const fs = unifiedFs();
    const cgroups = factory(fs, unified);
    await cgroups.create(ctx, 'kubepods-pod1.slice', id, limits);
    const slice = '/sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice';
    await fs.write(`${slice}/cgroup.subtree_control`, '-memory -pids');
    expect(fs.files.has(`${slice}/herkos-${id}/memory.max`)).to.equal(false);
    await cgroups.setLimits(ctx, 'kubepods-pod1.slice', id, { memoryBytesMax: 8192, pidsMax: 9 });
    expect(fs.files.get(`${slice}/herkos-${id}/memory.max`)).to.equal('8192');
    expect(fs.files.get(`${slice}/herkos-${id}/pids.max`)).to.equal('9');
  });

  it('does not pretend to limit what the host could', async () => {
    const fs = unifiedFs();
    const cgroups = factory(fs, unified);
    await cgroups.create(ctx, '/p', id, limits);
    await fs.write('/sys/fs/cgroup/p/cgroup.subtree_control', '-memory');
    fs.barrier = '/sys/fs/cgroup/p';
    const error = await rejection(cgroups.setLimits(ctx, '/p', id, { memoryBytesMax: 8192 }));
    expect(error).to.have.property('class', 'FailedPrecondition');
    expect(error).to.have.property('message').that.includes('controllers memory');
  });

  it('looks again where the hierarchies are when the first look failed', async () => {
    let looks = 0;
    const cgroups = new HostCgroups({ defaultParent: '/herkos' }, unifiedFs(), () => {
      looks += 1;
      return looks === 1 ? Promise.reject(new Error('too many open files')) : Promise.resolve(unified);
    });
    expect(String(await rejection(cgroups.create(ctx, '', id, {})))).to.include('too many open files');
    await cgroups.create(ctx, '', id, {});
    await cgroups.deleteGone(ctx, '', id);
    expect(looks).to.equal(2);
  });

  it('uses the default parent and may be asked twice', async () => {
    const fs = unifiedFs();
    const cgroups = factory(fs, unified);
    const first = await cgroups.create(ctx, '', id, {});
    expect(first.procsFiles).to.deep.equal([`/sys/fs/cgroup/herkos/herkos-${id}/cgroup.procs`]);
    expect(await cgroups.create(ctx, '', id, {})).to.deep.equal(first);
  });

  for (const hasKillFile of [true, false])
    it(`kills what is inside and removes it ${hasKillFile ? 'at once' : 'one by one'}`, async () => {
      const fs = unifiedFs();
      fs.hasKillFile = hasKillFile;
      const cgroups = factory(fs, unified);
      await cgroups.create(ctx, '/p', id, {});
      fs.processes.set(`/sys/fs/cgroup/p/herkos-${id}`, new Set([100, 200]));
      await cgroups.deleteGone(ctx, '/p', id);
      expect(fs.killed).to.deep.equal([100, 200]);
      expect([...fs.directories]).not.to.include(`/sys/fs/cgroup/p/herkos-${id}`);
      await cgroups.deleteGone(ctx, '/p', id);
    });

  it('leaves nothing behind when a limit cannot be set', async () => {
    const fs = hybridFs();
    const refuse = fs.write.bind(fs);
    fs.write = (path, value) =>
      path.endsWith('pids.max') ? Promise.reject(new Error('EINVAL')) : refuse(path, value);
    const error = await rejection(factory(fs, hybrid).create(ctx, '/p', id, limits));
    expect(error).to.have.property('message').that.includes('EINVAL');
    expect([...fs.directories].filter((path) => path.includes(id))).to.deep.equal([]);
  });

  it('stops with its context when a process cannot be killed', async () => {
    const fs = hybridFs();
    const cgroups = factory(fs, hybrid);
    await cgroups.create(ctx, '/p', id, {});
    fs.processes.set(`/sys/fs/cgroup/memory/p/herkos-${id}`, new Set([100]));
    fs.kill = () => undefined;
    const error = await rejection(cgroups.deleteGone(withTimeout(ctx, 30, 'deleting'), '/p', id));
    expect(error).to.have.property('class', 'DeadlineExceeded');
  });

  it('takes no id that could be a path', async () => {
    const error = await rejection(factory(unifiedFs(), unified).create(ctx, '/p', '../x', {}));
    expect(error).to.have.property('class', 'InvalidArgument');
  });
});

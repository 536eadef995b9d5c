import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { newId } from '../../../lib/base/ids.js';
import type { VmSpec } from '../../../lib/vm/ports.js';
import { FakeVmDriver } from '../../fakes/vm-driver.js';
import type { VmDriverHarness } from '../../suites/vm-driver.js';
import { vmDriverSuite } from '../../suites/vm-driver.js';

const limits = { portCount: 12, vcpusMax: 3, memoryMibMax: 1024 };

function newSpec(): VmSpec {
  return {
    cgroup: { procsFiles: [] },
    memory: { kind: 'own' },
    record: {
      schemaVersion: 1,
      id: newId(),
      sandboxId: '',
      domain: 'default',
      driver: 'fake',
      shape: { vcpus: 1, memoryMib: 128 },
      accelerator: 'tcg',
      source: 'cold',
      uid: 1,
      netns: 'none',
      tap: 'tap0',
      cgroupParent: '',
      pid: 0,
      processStartTicks: '0',
    },
  };
}

async function fakeHarness(): Promise<VmDriverHarness> {
  const directory = await mkdtemp(join(tmpdir(), 'hkf-'));
  const driver = new FakeVmDriver(limits);
  const newFile = async (sizeBytes: number): Promise<string> => {
    const path = join(directory, newId());
    await writeFile(path, '');
    await truncate(path, sizeBytes);
    return path;
  };
  return {
    driver,
    ...limits,
    serialPortCount: 29,
    vcpusLeave: true,
    newSocketPath: () => `/nowhere/${newId()}`,
    newSpec: () => Promise.resolve(newSpec()),
    newTemplateSpec: () => {
      const { record, cgroup } = newSpec();
      const image = {
        memory: { path: '/nowhere', inode: 1 },
        statePath: '/nowhere',
        directory: '/nowhere',
        gid: 1,
      };
      return Promise.resolve({ record, cgroup, memory: { kind: 'template', image } });
    },
    async newLayer(sizeBytes = 2 * 1024 * 1024, recordedBytes = sizeBytes) {
      return { key: newId(), path: await newFile(sizeBytes), sizeBytes: recordedBytes, subdirs: [''] };
    },
    newDisk: () => newFile(1024 * 1024),
    restartedDriver: () => new FakeVmDriver({ host: driver.host, ...limits }),
    killProcess(pid) {
      driver.host.kill(pid);
    },
    guestUp: () => Promise.resolve(),
    async cleanUp() {
      await rm(directory, { recursive: true, force: true });
    },
  };
}

vmDriverSuite('fake', fakeHarness);

import { randomBytes } from 'node:crypto';
import { chmod, chown, mkdtemp, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { background } from '../../../lib/base/context.js';
import { systemExec } from '../../../lib/base/exec.js';
import { newId } from '../../../lib/base/ids.js';
import { MIB } from '../../../lib/base/units.js';
import { silentLogger } from '../../../lib/base/logger.js';
import { QemuDriver } from '../../../lib/drivers/qemu/driver.js';
import { loadGuestFiles } from '../../../lib/drivers/qemu/guest-files.js';
import { qemuDefaults } from '../../../lib/drivers/qemu/settings.js';
import type { QemuSettings } from '../../../lib/drivers/qemu/settings.js';
import { defaultDomain } from '../../../lib/model/vm.js';
import type { VmRecord } from '../../../lib/model/vm.js';
import type { RunningVm, TemplateImage, VmSpec } from '../../../lib/vm/ports.js';
import type { VmDriverHarness } from '../../suites/vm-driver.js';
import { hostHelper } from '../../tools/host-helper.js';

const ctx = background();
const uidFirst = 1_910_000_000;
const uidCount = 1000;
/** Of the compiled test: dist/test/integration/vm. */
const guestDirectory = fileURLToPath(new URL('../../../../guest/out', import.meta.url));

export interface QemuHarness extends VmDriverHarness {
  readonly settings: QemuSettings;
  readonly directory: string;
  /** A VM whose guest runs. */
  running(spec?: VmSpec): Promise<RunningVm>;
  newSpec(): Promise<VmSpec & { readonly cgroup: { readonly procsFiles: string[] } }>;
}

/** Real QEMU, real namespaces; everything under one random instance name. */
export async function qemuHarness(overrides: Partial<QemuSettings> = {}): Promise<QemuHarness> {
  // Not tmpdir(): socket paths have a narrow limit.
  const directory = await mkdtemp('/tmp/hkv-');
  await chmod(directory, 0o711);
  const settings = await settingsIn(directory, overrides);
  const driver = new QemuDriver({ settings, exec: systemExec, logger: silentLogger });
  const namespaces: string[] = [];
  const newFile = async (sizeBytes: number): Promise<string> => {
    const path = join(directory, newId());
    await writeFile(path, '', { mode: 0o640 });
    await chown(path, 0, settings.sharedGid);
    await truncate(path, sizeBytes);
    return path;
  };
  const newSpec: QemuHarness['newSpec'] = async () => {
    const record = newRecord(settings.instance);
    namespaces.push(record.netns);
    await systemExec.run(ctx, 'ip', ['netns', 'add', record.netns]);
    const tap = ['tuntap', 'add', record.tap, 'mode', 'tap', 'user', String(record.uid)];
    await systemExec.run(ctx, 'ip', ['-n', record.netns, ...tap]);
    return { record, cgroup: { procsFiles: [] }, memory: { kind: 'own' } };
  };
  return {
    driver,
    settings,
    directory,
    portCount: settings.portCount,
    serialPortCount: 29,
    vcpusMax: settings.vcpusMax,
    memoryMibMax: settings.memoryMibMax,
    // QEMU 7.2 without KVM does not survive it.
    vcpusLeave: false,
    newSocketPath: () => `/tmp/hkp-${randomBytes(8).toString('hex')}`,
    newSpec,
    running: async (spec) => running(driver, spec ?? (await newSpec())),
    newTemplateSpec: async () => {
      const { record, cgroup } = await newSpec();
      const gid = settings.sharedGid;
      const image = await newImage(directory, gid, record.shape.memoryMib * MIB);
      return {
        record: { ...record, template: { id: newId(), gid } },
        cgroup,
        memory: { kind: 'template', image },
      };
    },
    newLayer: async (sizeBytes = 2 * 1024 * 1024, recordedBytes = sizeBytes) => ({
      key: newId(),
      path: await newFile(sizeBytes),
      sizeBytes: recordedBytes,
      subdirs: [''],
    }),
    newDisk: () => newFile(1024 * 1024),
    restartedDriver: () => new QemuDriver({ settings, exec: systemExec, logger: silentLogger }),
    killProcess: (pid) => {
      process.kill(pid, 'SIGKILL');
    },
    guestUp: agentAnswers,
    cleanUp: async () => {
      // Whose each was is not known any more.
      for (const id of await driver.list())
        await driver.destroyGone(ctx, { ...newRecord(settings.instance, id), uid: -1 });
      const left = await driver.list();
      if (left.length > 0) throw new Error(`virtual machines are left: ${left.join(' ')}`);
      for (const name of namespaces) await systemExec.run(ctx, 'ip', ['netns', 'delete', name]);
      await driver.removeShared(ctx);
      await rm(memoryIn(directory), { force: true });
      await rm(directory, { recursive: true, force: true });
    },
  };
}

async function running(driver: QemuDriver, spec: VmSpec): Promise<RunningVm> {
  const vm = await driver.start(ctx, spec);
  await vm.resume(ctx);
  return vm;
}

async function settingsIn(directory: string, overrides: Partial<QemuSettings>): Promise<QemuSettings> {
  return {
    ...qemuDefaults,
    instance: `t${randomBytes(4).toString('hex')}`,
    accel: 'tcg',
    hostHelper,
    runDir: join(directory, 'run'),
    stateDir: join(directory, 'state'),
    guest: await loadGuestFiles(guestDirectory),
    uidFirst,
    uidCount,
    sharedGid: uidFirst + uidCount,
    portCount: 8,
    vcpusMax: 3,
    memoryMibMax: 1024,
    ...overrides,
  };
}

/** On a file system whose files can be sealed. */
function memoryIn(directory: string): string {
  return join('/dev/shm', basename(directory));
}

/** Empty memory: while it is filled, it need not be sealed. */
async function newImage(directory: string, gid: number, sizeBytes: number): Promise<TemplateImage> {
  const path = memoryIn(directory);
  await writeFile(path, '', { mode: 0o600 });
  await truncate(path, sizeBytes);
  await chown(path, 0, gid);
  await chmod(path, 0o660);
  const memory = { path, inode: (await stat(path)).ino };
  return { memory, statePath: join(directory, 'state-file'), directory, gid };
}

function newRecord(instance: string, id = newId()): VmRecord {
  return {
    schemaVersion: 1,
    id,
    sandboxId: id,
    domain: defaultDomain,
    driver: 'qemu',
    shape: { vcpus: 1, memoryMib: 192 },
    accelerator: 'tcg',
    source: 'cold',
    uid: uidFirst + (randomBytes(2).readUInt16BE() % uidCount),
    netns: `${instance}-${id}`,
    tap: 'tap0',
    cgroupParent: '',
    pid: 0,
    processStartTicks: '0',
  };
}

/** HTTP/2's connection preface with an empty SETTINGS frame (RFC 9113 §3.4, §6.5). */
const preface = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]),
]);
/** A loaded machine answers late, and each greeting given up confuses the agent: so ever longer. */
const answerWaitsMs = [500, 1000, 2000, 4000, 8000, 15_000, 15_000];

/** Resolves when the agent has answered an HTTP/2 greeting: then the whole guest is up. */
async function agentAnswers(vm: RunningVm): Promise<void> {
  for (const waitMs of answerWaitsMs) if (await answersOnce(vm.agentSocketPath, waitMs)) return;
  throw new Error('the guest does not come up');
}

async function answersOnce(path: string, waitMs: number): Promise<boolean> {
  const socket = createConnection({ path });
  try {
    return await new Promise<boolean>((resolve, reject) => {
      socket.once('connect', () => socket.write(preface));
      socket.once('data', () => {
        resolve(true);
      });
      socket.once('error', reject);
      // Bytes that arrive before the guest opens its port are dropped by QEMU: greet again.
      setTimeout(resolve, waitMs, false);
    });
  } finally {
    socket.destroy();
  }
}

import { access, constants, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { silentLogger } from '../../../lib/base/logger.js';
import type { VmRecord } from '../../../lib/model/vm.js';
import { systemKsmFs } from '../../../lib/vm/ksm/ksm-fs.js';
import type { KsmFs } from '../../../lib/vm/ksm/ksm-fs.js';
import { KsmHost } from '../../../lib/vm/ksm/ksm-host.js';
import { KsmScanner } from '../../../lib/vm/ksm/scanner.js';
import type { QemuHarness } from './qemu-harness.js';
import { qemuHarness } from './qemu-harness.js';

const ctx = background();
const intervalMs = 500;

/** The real kernel, on a machine that has time: what others do on it must not decide whether the test ends. */
const calmFs: KsmFs = {
  ...systemKsmFs,
  read: async (path) =>
    path === '/proc/pressure/cpu'
      ? 'some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n'
      : systemKsmFs.read(path),
};

/** Why the host's scanner may not be used here; it is one for everybody. */
async function obstacle(): Promise<string | undefined> {
  const run = await systemKsmFs.read('/sys/kernel/mm/ksm/run');
  if (run === undefined) return 'this kernel has no KSM';
  if (run.trim() !== '0') return 'KSM is used by somebody else';
  return access('/sys/kernel/mm/ksm/run', constants.W_OK).then(
    () => undefined,
    () => 'KSM may not be changed here',
  );
}

/** Whether any mapping of the process was offered to the kernel (proc(5), smaps, VmFlags). */
async function hasOffered(pid: number): Promise<boolean> {
  return /^VmFlags:.*\bmg\b/m.test(await readFile(`/proc/${String(pid)}/smaps`, 'utf8'));
}

async function mergedPages(pid: number): Promise<number> {
  const text = (await systemKsmFs.read(`/proc/${String(pid)}/ksm_stat`)) ?? '';
  return Number(/^ksm_merging_pages (\d+)$/m.exec(text)?.[1] ?? Number.NaN);
}

describe('equal pages of real VMs', () => {
  let harness: QemuHarness;
  let scanner: KsmScanner | undefined;
  let records: VmRecord[];

  before(async function () {
    const why = await obstacle();
    if (why === undefined) return;
    console.log(`      skipped: ${why}`);
    this.skip();
  });

  beforeEach(async () => {
    scanner = undefined;
    records = [];
    harness = await qemuHarness();
  });

  afterEach(async () => {
    await harness.cleanUp();
    // Now that the VMs are gone the kernel may forget them.
    records = [];
    await scanner?.close();
  });

  async function start(mergeable: boolean): Promise<VmRecord> {
    const spec = await harness.newSpec();
    const record = { ...spec.record, domain: mergeable ? 'a' : 'b', mergeable };
    const vm = await harness.running({ ...spec, record });
    await harness.guestUp(vm);
    return { ...record, pid: vm.pid, processStartTicks: vm.processStartTicks };
  }

  it('are merged in the domain that opted in and nowhere else, and the kernel gets its values back', async () => {
    const host = new KsmHost(calmFs, `${harness.directory}/ksm.json`);
    const before = await host.values();
    records = [await start(true), await start(true), await start(false)];
    const [first, second, other] = records.map(({ pid }) => pid) as [number, number, number];
    expect(await hasOffered(first)).to.equal(true);
    expect(await hasOffered(second)).to.equal(true);
    expect(await hasOffered(other)).to.equal(false);

    scanner = new KsmScanner({
      host,
      domains: ['a'],
      records: () => records,
      logger: silentLogger,
      intervalMs,
      freshMsMin: 0,
    });
    const from = await scanner.report();
    await scanner.start();
    let report = await scanner.report();
    expect(report).to.include({ state: 'fast', vms: 2 });
    // The third pass merges; the scanner itself knows when that is over.
    while (report.state === 'fast') {
      await delay(intervalMs);
      report = await scanner.report();
    }
    expect(report.state).to.equal('slow');
    expect(report.fullScans).to.be.greaterThan(from.fullScans);
    expect(report.pagesSharing).to.be.greaterThan(0);
    const merged = await Promise.all([first, second, other].map(mergedPages));
    if (!Number.isNaN(merged[0])) {
      expect(merged[0]).to.be.greaterThan(0);
      expect(merged[1]).to.be.greaterThan(0);
      expect(merged[2]).to.equal(0);
    }

    for (const record of records) await harness.driver.destroyGone(ctx, record);
    records = [];
    await scanner.update();
    const after = await scanner.report();
    expect(after.state).to.equal('off');
    // Of processes that ended while the kernel did not scan it counts pages until it scans again.
    expect(after.pagesSharing).to.be.at.most(from.pagesSharing);
    expect(await host.values()).to.deep.equal(before);
    expect(await host.saved()).to.equal(undefined);
  });
});

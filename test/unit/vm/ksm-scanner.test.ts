import { setTimeout as wait } from 'node:timers/promises';

import { expect } from 'chai';

import type { LogFields, Logger } from '../../../lib/base/logger.js';
import type { VmRecord } from '../../../lib/model/vm.js';
import { KsmHost } from '../../../lib/vm/ksm/ksm-host.js';
import { KsmScanner } from '../../../lib/vm/ksm/scanner.js';
import { FakeKsmFs } from '../../fakes/ksm-fs.js';
import { eventually } from '../../tools/eventually.js';

const savedPath = '/state/ksm.json';
const untouched = { run: '0', pages_to_scan: '100', sleep_millisecs: '20', advisor_mode: 'none [scan-time]' };

function vm(id: string, more: Partial<VmRecord> = {}): VmRecord {
  return {
    schemaVersion: 1,
    id,
    sandboxId: id,
    domain: 'a',
    mergeable: true,
    driver: 'fake',
    shape: { vcpus: 1, memoryMib: 256 },
    accelerator: 'tcg',
    source: 'clone',
    uid: 5000,
    netns: `t-${id}`,
    tap: 'tap0',
    cgroupParent: '',
    pid: 1000,
    processStartTicks: '1',
    ...more,
  };
}

/** A node whose daemon may be started again. */
class Node {
  readonly fs = new FakeKsmFs();
  readonly logged: { readonly level: string; readonly message: string; readonly fields?: LogFields }[] = [];
  vms: VmRecord[] = [];
  freshMsMin = 0;
  /** Most tests do not wait for the next step by itself. */
  intervalMs = 3_600_000;

  scanner(domains: readonly string[] = ['a']): KsmScanner {
    return new KsmScanner({
      host: new KsmHost(this.fs, savedPath),
      domains,
      records: () => this.vms,
      logger: this.#logger(),
      intervalMs: this.intervalMs,
      freshMsMin: this.freshMsMin,
    });
  }

  values(): Record<string, string | undefined> {
    return Object.fromEntries(Object.keys(untouched).map((name) => [name, this.fs.ksm(name)]));
  }

  warnings(): string[] {
    return this.logged.filter(({ level }) => level === 'warn').map(({ message }) => message);
  }

  #logger(): Logger {
    const at = (level: string) => (message: string, fields?: LogFields) => {
      this.logged.push({ level, message, ...(fields === undefined ? {} : { fields }) });
    };
    return {
      debug: at('debug'),
      info: at('info'),
      warn: at('warn'),
      error: at('error'),
      with: () => this.#logger(),
    };
  }
}

describe('the scanner for equal pages', () => {
  let node: Node;
  let scanner: KsmScanner;

  beforeEach(() => {
    node = new Node();
    scanner = node.scanner();
  });

  afterEach(async () => {
    await scanner.close();
  });

  const state = async (): Promise<string> => (await scanner.report()).state;

  it('touches nothing while no domain opts in, or none of its VMs lives', async () => {
    node.vms = [vm('1')];
    await node.scanner([]).start();
    node.vms = [vm('1', { domain: 'b' }), vm('2', { mergeable: false }), vm('3', { pid: 0 })];
    await scanner.start();
    expect(await state()).to.equal('off');
    expect(node.fs.writes).to.deep.equal([]);
    expect(node.fs.files.has(savedPath)).to.equal(false);
  });

  it('is fast after new VMs, then slow, then off with the values from before', async () => {
    await scanner.start();
    node.vms = [vm('1')];
    await scanner.update();
    expect(await state()).to.equal('fast');
    expect(node.values()).to.include({ run: '1', pages_to_scan: '400', sleep_millisecs: '20' });
    expect(node.fs.ksm('advisor_mode')).to.equal('[none] scan-time');
    node.fs.setKsm('full_scans', '4');
    await scanner.update();
    expect(await state()).to.equal('slow');
    expect(node.values()).to.include({ run: '1', sleep_millisecs: '200' });
    node.vms = [vm('1'), vm('2')];
    await scanner.update();
    expect(await state()).to.equal('fast');
    node.vms = [];
    await scanner.update();
    expect(await state()).to.equal('off');
    expect(node.values()).to.deep.equal(untouched);
    expect(node.fs.files.has(savedPath)).to.equal(false);
  });

  it('stays fast for a while however soon the passes are over', async () => {
    node.freshMsMin = 3_600_000;
    scanner = node.scanner();
    node.vms = [vm('1')];
    await scanner.start();
    node.fs.setKsm('full_scans', '100');
    await scanner.update();
    expect(await state()).to.equal('fast');
  });

  it('rests while too many wait for processors, and writes nothing that is so already', async () => {
    node.vms = [vm('1')];
    await scanner.start();
    node.fs.setPressure(80);
    await scanner.update();
    expect(await state()).to.equal('resting');
    expect(node.fs.ksm('run')).to.equal('0');
    const { length } = node.fs.writes;
    await scanner.update();
    expect(node.fs.writes).to.have.length(length);
    node.fs.setPressure(30);
    await scanner.update();
    expect(node.values()).to.include({ run: '1', pages_to_scan: '200' });
  });

  it('takes the load for the pressure where the kernel measures none', async () => {
    node.fs.files.delete('/proc/pressure/cpu');
    node.fs.files.set('/proc/loadavg', '4096.00 0.00 0.00 1/1 1\n');
    node.vms = [vm('1')];
    await scanner.start();
    expect(await state()).to.equal('resting');
  });

  it('learns what a page costs from the time of ksmd, whatever calls itself so', async () => {
    node.vms = [vm('1')];
    await scanner.start();
    node.fs.setKsm('pages_scanned', '100000');
    node.fs.setCpuTicks(200);
    await scanner.update();
    // 2,000 ms for 100,000 pages.
    expect(await scanner.report()).to.include({ pageCostUs: 20, cpuMs: 2_000, vms: 1 });
    expect(node.fs.ksm('pages_to_scan')).to.equal('100');
  });

  it('frees what the kernel keeps of VMs that are gone, unless somebody else has merged pages', async () => {
    const ends = async (): Promise<string[]> => {
      node.vms = [vm('1')];
      await scanner.update();
      node.vms = [];
      node.fs.writes.length = 0;
      await scanner.update();
      expect(node.values()).to.deep.equal(untouched);
      return node.fs.writes.filter((write) => write.startsWith('run='));
    };
    await scanner.start();
    expect(await ends()).to.deep.equal(['run=2', 'run=0']);
    node.fs.files.set('/proc/2000/ksm_stat', 'ksm_rmap_items 0\nksm_mergeable: yes\n');
    expect(await ends()).to.deep.equal(['run=0']);
    node.fs.files.delete('/proc/2000/ksm_stat');
    node.fs.files.delete('/proc/self/ksm_stat');
    expect(await ends()).to.deep.equal(['run=0']);
  });

  it('leaves merged pages of VMs that go on as they are when the daemon ends', async () => {
    node.vms = [vm('1')];
    await scanner.start();
    node.fs.writes.length = 0;
    await scanner.close();
    expect(node.fs.writes).not.to.include('run=2');
  });

  it('restores at the end, and a start after a crash at any moment finds the values from before', async () => {
    node.vms = [vm('1')];
    await scanner.start();
    await scanner.close();
    expect(node.values()).to.deep.equal(untouched);
    for (let writes = 0; writes < 12; writes += 1) {
      const crashed = new Node();
      crashed.vms = [vm('1')];
      crashed.fs.writesLeft = writes;
      const first = crashed.scanner();
      await first.start();
      await first.close();
      crashed.fs.writesLeft = Number.POSITIVE_INFINITY;
      const second = crashed.scanner();
      await second.start();
      expect((await second.report()).state, String(writes)).to.equal('fast');
      await second.close();
      expect(crashed.values(), String(writes)).to.deep.equal(untouched);
      expect(crashed.warnings()).to.deep.equal([]);
    }
  });

  it('restores for a daemon that died, when nobody opts in any more', async () => {
    node.vms = [vm('1')];
    await scanner.start();
    await node.scanner([]).start();
    expect(node.values()).to.deep.equal(untouched);
    expect(node.fs.files.has(savedPath)).to.equal(false);
  });

  it('does not believe what was written down before the host booted, or is broken', async () => {
    for (const text of ['{', '{"schemaVersion":1}']) {
      node.fs.files.set(savedPath, text);
      const other = node.scanner([]);
      await other.start();
      expect(node.fs.writes).to.deep.equal([]);
    }
    node.vms = [vm('1')];
    await scanner.start();
    for (const [name, value] of Object.entries({ ...untouched, pages_to_scan: '777' }))
      node.fs.setKsm(name, value);
    node.fs.files.set('/proc/sys/kernel/random/boot_id', 'boot-2\n');
    const next = node.scanner();
    await next.start();
    await next.close();
    expect(node.values()).to.deep.equal({ ...untouched, pages_to_scan: '777' });
  });

  it('leaves a scanner alone that runs for others, and says so', async () => {
    node.fs.setKsm('run', '1');
    node.fs.setKsm('pages_shared', '12');
    node.vms = [vm('1')];
    await scanner.start();
    await scanner.update();
    await scanner.close();
    expect(await state()).to.equal('foreign');
    expect(node.fs.writes).to.deep.equal([]);
    expect(node.warnings()).to.have.length(1);
    expect(node.logged[0]?.fields).to.deep.equal({ domain: 'a', pagesShared: 12 });
  });

  it('yields to somebody who switches it while it runs', async () => {
    node.vms = [vm('1')];
    await scanner.start();
    node.fs.setKsm('run', '2');
    await scanner.update();
    expect(await state()).to.equal('foreign');
    await scanner.close();
    expect(node.fs.ksm('run')).to.equal('2');
    expect(node.fs.files.has(savedPath)).to.equal(false);
  });

  it('names other processes whose pages would be merged with those of the domain', async () => {
    node.fs.files.set('/proc/1000/ksm_stat', 'ksm_rmap_items 5\nksm_mergeable: yes\n');
    node.fs.files.set('/proc/2000/ksm_stat', 'ksm_rmap_items 0\nksm_mergeable: yes\n');
    node.fs.files.set('/proc/2001/ksm_stat', 'ksm_rmap_items 9\n');
    node.fs.files.set('/proc/2002/ksm_stat', 'ksm_rmap_items 0\nksm_mergeable: no\n');
    node.vms = [vm('1')];
    await scanner.start();
    expect(node.warnings()).to.have.length(1);
    expect(node.logged.find(({ level }) => level === 'warn')?.fields).to.deep.equal({
      domain: 'a',
      processes: 2,
      pids: '2000,2001',
    });
  });

  it('does without: a kernel that has none, or does not let us', async () => {
    node.fs.setKsm('run', undefined);
    node.vms = [vm('1')];
    await scanner.start();
    expect(await state()).to.equal('unavailable');
    expect(node.warnings()).to.have.length(1);
    const refused = new Node();
    refused.vms = [vm('1')];
    refused.fs.refuse = { name: 'advisor_mode', code: 'EROFS' };
    const other = refused.scanner();
    await other.start();
    await other.update();
    expect((await other.report()).state).to.equal('unavailable');
    expect(refused.warnings()).to.have.length(1);
  });

  it('goes on after a failure that passes', async () => {
    node.fs.refuse = { name: 'pages_to_scan', code: 'EIO' };
    node.vms = [vm('1')];
    await scanner.start();
    expect(node.warnings()).to.have.length(1);
    node.fs.refuse = undefined;
    await scanner.update();
    expect(await state()).to.equal('fast');
  });

  it('gives back by itself what it could not at first', async () => {
    node.intervalMs = 5;
    scanner = node.scanner();
    node.vms = [vm('1')];
    await scanner.start();
    // In the middle: the scanner is off by then, and that by us.
    node.fs.refuse = { name: 'sleep_millisecs', code: 'EIO' };
    node.vms = [];
    await scanner.update();
    expect(node.fs.files.has(savedPath)).to.equal(true);
    node.fs.refuse = undefined;
    await eventually(async () => (await state()) === 'off');
    expect(node.values()).to.deep.equal(untouched);
    expect(node.fs.files.has(savedPath)).to.equal(false);
    const { length } = node.fs.writes;
    await wait(20);
    expect(node.fs.writes).to.have.length(length);
  });

  it('gives the values back though what is merged cannot be taken apart', async () => {
    node.vms = [vm('1')];
    await scanner.start();
    node.fs.refuse = { name: 'run', value: '2', code: 'ENOMEM' };
    node.vms = [];
    await scanner.update();
    expect(await state()).to.equal('off');
    expect(node.values()).to.deep.equal(untouched);
    expect(node.warnings()).to.have.length(1);
  });

  it('does nothing before it has started or after its end', async () => {
    node.vms = [vm('1')];
    await scanner.update();
    await scanner.close();
    await scanner.update();
    expect(node.fs.writes).to.deep.equal([]);
  });

  it('says what is gained when it is much', async () => {
    node.vms = [vm('1')];
    await scanner.start();
    const gains = (): unknown[] =>
      node.logged
        .filter(({ message }) => message.includes('merged'))
        .map(({ fields }) => fields?.['savedMib']);
    for (const mib of [10, 100, 110, 400]) {
      node.fs.setKsm('pages_sharing', String(mib * 256));
      await scanner.update();
    }
    expect(gains()).to.deep.equal([100, 400]);
  });
});

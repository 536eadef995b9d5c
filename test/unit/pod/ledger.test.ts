/** Records in memory and on a disk that fails, before or after it has written. */
import { setTimeout as wait } from 'node:timers/promises';

import { expect } from 'chai';
import fc from 'fast-check';

import { background, withCancel } from '../../../lib/base/context.js';
import { silentLogger } from '../../../lib/base/logger.js';
import type { SandboxRecord } from '../../../lib/model/sandbox.js';
import { noTime } from '../../../lib/model/time.js';
import { Ledger } from '../../../lib/pod/ledger.js';
import type { RecordStore } from '../../../lib/pod/ports.js';
import { SandboxEntry } from '../../../lib/pod/registry.js';
import { sandboxConfig } from '../../fakes/pod-configs.js';
import { testDeadlines } from '../../fakes/pod-world.js';
import { eventually } from '../../tools/eventually.js';

type Failure = 'before' | 'after' | undefined;

/** One record; its `createdAt` is its version here. */
class Disk implements RecordStore<SandboxRecord> {
  failures: Failure[] = [];
  record: SandboxRecord | undefined;
  readonly versions: number[] = [];

  async put(record: SandboxRecord): Promise<void> {
    const failure = this.failures.shift();
    await wait(1);
    if (failure !== 'before') {
      this.record = record;
      this.versions.push(Number(record.createdAt));
    }
    if (failure !== undefined) throw new Error('the disk failed');
  }

  async delete(): Promise<void> {
    await wait(1);
    this.record = undefined;
  }

  loadAll(): Promise<SandboxRecord[]> {
    return Promise.resolve([]);
  }
}

describe('a record in memory and on disk', () => {
  let disk: Disk;
  let ledger: Ledger;
  let entry: SandboxEntry;
  const life = withCancel(background());

  function begin(): void {
    disk = new Disk();
    ledger = new Ledger({ sandboxes: disk, containers: neverUsed }, silentLogger, testDeadlines, life);
    const config = sandboxConfig({ logDirectory: '' });
    const record = {
      id: 'a',
      schemaVersion: 1 as const,
      config,
      phase: 'creating' as const,
      createdAt: noTime,
    };
    entry = new SandboxEntry(record as unknown as SandboxRecord);
  }

  beforeEach(begin);

  after(() => {
    life.cancel();
  });

  function version(number: number): SandboxRecord {
    return { ...entry.record, createdAt: String(number) };
  }

  it('is on the disk as it was, when what was to replace it was written and failed', async () => {
    await ledger.putSandbox(entry, version(1));
    disk.failures = ['after'];
    await ledger.putSandbox(entry, version(2)).catch(() => undefined);
    expect(entry.record.createdAt).to.equal('1');
    await eventually(() => disk.record?.createdAt === '1');
  });

  it('does not come back when its first write failed and it was removed', async () => {
    disk.failures = ['after', 'before', 'before'];
    await ledger.putSandbox(entry, version(1)).catch(() => undefined);
    await wait(3 * testDeadlines.retryFirstMs);
    await ledger.deleteSandbox(entry);
    await wait(5 * testDeadlines.retryFirstMs);
    expect(disk.record).to.equal(undefined);
  });

  it('is gone when it was removed while much waited to be written', async () => {
    const writes = [ledger.putSandbox(entry, version(1)), ledger.noteSandbox(entry, version(2))];
    const removed = ledger.deleteSandbox(entry);
    await Promise.allSettled([...writes, removed]);
    expect(disk.versions.length).to.be.greaterThan(0);
    expect(disk.record).to.equal(undefined);
  });

  it('is the same in both in the end, and what was told as written is not undone', async () => {
    const step = fc.record({
      verb: fc.constantFrom('put' as const, 'note' as const),
      failures: fc.array(fc.constantFrom<Failure>('before', 'after', undefined), { maxLength: 3 }),
      waitMs: fc.nat(8),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 8 }), async (steps) => {
        begin();
        let told = 0;
        const calls: Promise<void>[] = [];
        for (const [index, { verb, failures, waitMs }] of steps.entries()) {
          disk.failures.push(...failures);
          const next = version(index + 1);
          const call = verb === 'put' ? ledger.putSandbox(entry, next) : ledger.noteSandbox(entry, next);
          const seen = call.then(() => {
            if (verb === 'note') return;
            told = index + 1;
            expect(disk.record?.createdAt).to.equal(next.createdAt);
            disk.versions.length = 0;
          });
          calls.push(
            seen.catch((error: unknown) => {
              if (error instanceof Error && error.name === 'AssertionError') throw error;
            }),
          );
          await wait(waitMs);
          expect(disk.versions.every((one) => one >= told)).to.equal(true);
        }
        await Promise.all(calls);
        await eventually(() => disk.record === undefined || disk.record.createdAt === entry.record.createdAt);
      }),
      { numRuns: 40 },
    );
  });
});

const neverUsed = {
  put: () => Promise.reject(new Error('not a container')),
  delete: () => Promise.reject(new Error('not a container')),
  loadAll: () => Promise.resolve([]),
};

import { expect } from 'chai';
import { execFileSync } from 'node:child_process';
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { background, withCancel } from '../../../lib/base/context.js';
import { HerkosError, messageOf } from '../../../lib/base/errors.js';
import { systemExec } from '../../../lib/base/exec.js';
import type { ContainerRecord } from '../../../lib/model/container.js';
import * as states from '../../../lib/model/container-state.js';
import { diskPath, makeDirectories, makeDisk, sweepFiles } from '../../../lib/pod/disk.js';
import {
  hostnameOf,
  hostsFile,
  nodeResolvConf,
  resolvConfOf,
  withoutLoopback,
} from '../../../lib/pod/name-files.js';
import { either, takeStep, together } from '../../../lib/pod/steps.js';
import { containerConfig } from '../../fakes/pod-configs.js';
import { rejection } from '../../tools/rejection.js';

describe('the writable disk', () => {
  let directory: string;

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'herkos-disk-'));
    await makeDirectories(directory);
  });

  after(async () => {
    await rm(directory, { recursive: true });
  });

  it('is a sound, sparse ext4 file system of the size that was set', async () => {
    const path = diskPath(directory, 'a'.repeat(64));
    const size = 10 * 1024 ** 3;
    await makeDisk(background(), systemExec, path, size);
    const status = await stat(path);
    expect(status.size).to.equal(size);
    expect(status.blocks * 512).to.be.lessThan(4 * 1024 * 1024);
    execFileSync('/usr/sbin/e2fsck', ['-fn', path], { stdio: 'pipe' });
    const facts = execFileSync('/usr/sbin/dumpe2fs', ['-h', path], { stdio: 'pipe' }).toString();
    expect(facts).not.to.match(/has_journal/);
    expect(facts).to.match(/Reserved block count:\s+0\n/);
  });

  it('is refused when it is too small to be one', async () => {
    const tiny = makeDisk(background(), systemExec, diskPath(directory, 'b'.repeat(64)), 4096);
    expect(messageOf(await rejection(tiny))).to.match(/too small/);
  });

  it('is swept when nobody owns it', async () => {
    const owned = 'c'.repeat(64);
    await writeFile(diskPath(directory, owned), '');
    await writeFile(diskPath(directory, 'd'.repeat(64)), '');
    await writeFile(join(directory, 'cursors', `${'e'.repeat(64)}.json.tmp`), '');
    await sweepFiles(directory, (id) => id === owned);
    expect(await readdir(join(directory, 'disks'))).to.deep.equal([`${owned}.ext4`]);
    expect(await readdir(join(directory, 'cursors'))).to.deep.equal([]);
  });
});

describe('name files', () => {
  it('know the pod by its name', () => {
    expect(hostsFile('box', ['10.0.0.2', 'fd00::2'])).to.match(/\n10\.0\.0\.2\tbox\nfd00::2\tbox\n$/);
    expect(hostnameOf({ hostname: '', metadata: { name: 'web-0' } })).to.equal('web-0');
    expect(hostnameOf({ hostname: `${'a'.repeat(63)}-b`, metadata: { name: '' } })).to.equal('a'.repeat(63));
  });

  it('resolve as the pod says, else as the node does', () => {
    expect(resolvConfOf(undefined)).to.equal(undefined);
    expect(resolvConfOf({ servers: [], searches: [], options: [] })).to.equal(undefined);
    expect(resolvConfOf({ servers: ['1.1.1.1'], searches: ['a', 'b'], options: ['ndots:5'] })).to.equal(
      'search a b\nnameserver 1.1.1.1\noptions ndots:5\n',
    );
  });

  it('leave out resolvers that only the node can reach', async () => {
    expect(withoutLoopback('search x\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 9.9.9.9\n')).to.equal(
      'search x\nnameserver 9.9.9.9\n',
    );
    expect(withoutLoopback('nameserver ::1234')).to.equal('nameserver ::1234');
    expect(typeof (await nodeResolvConf('/nonexistent'))).to.equal('string');
  });
});

describe('the moves of a container', () => {
  const record: ContainerRecord = {
    schemaVersion: 1,
    id: 'a'.repeat(64),
    sandboxId: 'b'.repeat(64),
    config: containerConfig('sleep'),
    imageId: '',
    imageRef: '',
    user: { uid: 0, gid: 0, supplementalGroups: [] },
    stopSignal: 15,
    logPath: '',
    createdAt: '100',
    startedAt: '0',
    finishedAt: '0',
    phase: 'creating',
  };
  const exit = states.exitOf(0, false);

  it('go one way', () => {
    const running = states.toRunning(states.toStarting(states.toCreated(record)), '200');
    expect(running).to.include({ phase: 'running', startedAt: '200' });
    expect(states.toExited(running, exit, '300', '400')).to.include({ phase: 'exited', finishedAt: '300' });
    expect(() => states.toCreated(running)).to.throw(/cannot go from running to created/);
    expect(() => states.toRunning(record, '1')).to.throw(/cannot go/);
  });

  it('bound what the guest says of the time', () => {
    const created = states.toCreated(record);
    for (const [said, told] of [
      ['50', '100'],
      ['250', '250'],
      ['999', '400'],
      ['-5', '400'],
      ['soon', '400'],
    ] as const)
      expect(states.toExited(created, exit, said, '400').finishedAt).to.equal(told);
    // The host's own clock was set back meanwhile.
    expect(states.toExited(created, exit, '80', '90').finishedAt).to.equal('100');
  });
});

describe('a step', () => {
  const step = { what: 'the step', timeoutMs: 60_000, settleMs: 5 };

  it('is waited for while it stops', async () => {
    const ctx = withCancel(background());
    const order: string[] = [];
    const work = takeStep(ctx, { ...step, settleMs: 60_000 }, async (inner) => {
      await new Promise<void>((resolve) => {
        inner.signal.addEventListener('abort', () => setTimeout(resolve, 10));
      });
      order.push('stopped');
      throw new Error('interrupted');
    });
    ctx.cancel(new HerkosError('Cancelled', 'the caller left'));
    expect(messageOf(await rejection(work))).to.equal('the caller left');
    expect(order).to.deep.equal(['stopped']);
  });

  it('is given up when it does not stop, and undone when it finishes after all', async () => {
    let finish: (value: string) => void = () => undefined;
    const late = new Promise<string>((resolve) => {
      const work = takeStep(
        background(),
        { ...step, timeoutMs: 5, late: resolve },
        () =>
          new Promise<string>((settle) => {
            finish = settle;
          }),
      );
      void rejection(work).then(() => {
        finish('too late');
      });
    });
    expect(await late).to.equal('too late');
  });

  it('fails together with its siblings, after they have stopped', async () => {
    let stopped = false;
    const error = await rejection(
      together(
        background(),
        () => Promise.reject(new Error('first')),
        async (ctx) => {
          await new Promise<void>((resolve) => {
            ctx.signal.addEventListener('abort', () => setTimeout(resolve, 5));
          });
          stopped = true;
        },
      ),
    );
    expect([messageOf(error), stopped]).to.deep.equal(['first', true]);
  });

  it('ends with either context', () => {
    const [one, two] = [withCancel(background()), withCancel(background())];
    const both = either(one, two);
    two.cancel(new HerkosError('Unavailable', 'two'));
    expect((both.signal.reason as Error).message).to.equal('two');
    const ended = either(background(), two);
    expect(ended.signal.aborted).to.equal(true);
  });
});

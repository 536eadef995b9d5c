import { expect } from 'chai';

import { background, withCancel } from '../../../lib/base/context.js';
import { KeyedLock } from '../../../lib/base/keyed-lock.js';
import { Semaphore } from '../../../lib/base/semaphore.js';
import { rejection } from '../../tools/rejection.js';

const tick = async (): Promise<void> =>
  new Promise((resolve) => {
    setImmediate(resolve);
  });

describe('base/keyed-lock', () => {
  it('runs bodies of one key one after the other, in order', async () => {
    const lock = new KeyedLock();
    const log: string[] = [];
    const body = (name: string) => async (): Promise<void> => {
      log.push(`${name} in`);
      await tick();
      log.push(`${name} out`);
    };
    await Promise.all(['a', 'b', 'c'].map(async (name) => lock.run(background(), 'key', body(name))));
    expect(log).to.deep.equal(['a in', 'a out', 'b in', 'b out', 'c in', 'c out']);
    await tick();
    expect(lock.isHeld('key')).to.equal(false);
  });

  it('does not make different keys wait', async () => {
    const lock = new KeyedLock();
    let free: () => void = () => undefined;
    const held = lock.run(background(), 'one', async () => new Promise<void>((resolve) => (free = resolve)));
    expect(await lock.run(background(), 'two', async () => Promise.resolve(2))).to.equal(2);
    free();
    await held;
  });

  it('lets a waiter leave without letting the next one in early', async () => {
    const lock = new KeyedLock();
    const log: string[] = [];
    let free: () => void = () => undefined;
    const held = lock.run(background(), 'key', async () => {
      await new Promise<void>((resolve) => (free = resolve));
      log.push('first out');
    });
    const impatient = withCancel(background());
    const left = rejection(lock.run(impatient, 'key', async () => Promise.resolve(log.push('never'))));
    const last = lock.run(background(), 'key', async () => Promise.resolve(log.push('last in')));
    impatient.cancel();
    expect(await left).to.have.property('class', 'Cancelled');
    await tick();
    free();
    await Promise.all([held, last]);
    expect(log).to.deep.equal(['first out', 'last in']);
  });
});

describe('base/semaphore', () => {
  it('never runs more than its limit, and runs all', async () => {
    const semaphore = new Semaphore(3);
    let running = 0;
    let most = 0;
    let done = 0;
    await Promise.all(
      Array.from({ length: 20 }, async () =>
        semaphore.run(background(), async () => {
          running += 1;
          most = Math.max(most, running);
          await tick();
          running -= 1;
          done += 1;
        }),
      ),
    );
    expect([most, done]).to.deep.equal([3, 20]);
  });

  it('gives the place of a waiter that left to the next', async () => {
    const semaphore = new Semaphore(1);
    let free: () => void = () => undefined;
    const held = semaphore.run(background(), async () => new Promise<void>((resolve) => (free = resolve)));
    const impatient = withCancel(background());
    const left = rejection(semaphore.run(impatient, async () => Promise.resolve()));
    const next = semaphore.run(background(), async () => Promise.resolve('in'));
    impatient.cancel();
    await left;
    free();
    await held;
    expect(await next).to.equal('in');
  });

  it('gives the place of one that leaves early to the next, once', async () => {
    const semaphore = new Semaphore(1);
    let running = 0;
    let most = 0;
    let free: () => void = () => undefined;
    const early = semaphore.run(background(), async (leave) => {
      leave();
      leave();
      await new Promise<void>((resolve) => (free = resolve));
    });
    await Promise.all(
      Array.from({ length: 5 }, async () =>
        semaphore.run(background(), async () => {
          running += 1;
          most = Math.max(most, running);
          await tick();
          running -= 1;
        }),
      ),
    );
    free();
    await early;
    expect(most).to.equal(1);
    expect(await semaphore.run(background(), async () => Promise.resolve('in'))).to.equal('in');
  });
});

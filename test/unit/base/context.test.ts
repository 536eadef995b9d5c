import { expect } from 'chai';

import {
  abortable,
  background,
  sleep,
  throwIfDone,
  underDeadline,
  withCancel,
  withTimeout,
} from '../../../lib/base/context.js';
import { HerkosError } from '../../../lib/base/errors.js';
import { rejection } from '../../tools/rejection.js';

describe('base/context', () => {
  it('ends a child with its parent, and keeps the reason', () => {
    const parent = withCancel(background());
    const child = withCancel(parent);
    parent.cancel(new HerkosError('Cancelled', 'the client left'));
    expect(() => {
      throwIfDone(child);
    }).to.throw(HerkosError, 'the client left');
  });

  it('does not end a parent with its child', () => {
    const parent = withCancel(background());
    withCancel(parent).cancel();
    expect(parent.signal.aborted).to.equal(false);
    parent.cancel();
  });

  it('names what took too long', async () => {
    const ctx = withTimeout(background(), 1, 'waiting for the guest');
    const error = await rejection(abortable(ctx, new Promise<void>(() => undefined)));
    expect(error).to.be.instanceOf(HerkosError).with.property('class', 'DeadlineExceeded');
    expect(error).to.have.property('message', 'waiting for the guest took longer than 1 ms');
  });

  it('rejects at once when the context has ended before', async () => {
    const ctx = withCancel(background());
    ctx.cancel();
    expect(await rejection(sleep(ctx, 60_000))).to.have.property('class', 'Cancelled');
    expect(await rejection(abortable(ctx, Promise.resolve(1)))).to.have.property('class', 'Cancelled');
  });

  it('leaves no listener on the parent once the body is done', async () => {
    const parent = withCancel(background());
    let seen = 0;
    const { signal } = parent;
    const add = signal.addEventListener.bind(signal);
    const remove = signal.removeEventListener.bind(signal);
    signal.addEventListener = (...args: Parameters<typeof add>): void => {
      seen += 1;
      add(...args);
    };
    signal.removeEventListener = (...args: Parameters<typeof remove>): void => {
      seen -= 1;
      remove(...args);
    };
    await underDeadline(parent, 60_000, 'a step', async (ctx) => abortable(ctx, Promise.resolve()));
    expect(seen).to.equal(0);
    parent.cancel();
  });

  it('does not take a deadline beyond what timers can wait for one that has passed', async () => {
    const ctx = withTimeout(background(), 2 ** 40, 'for ever');
    await sleep(ctx, 5);
    expect(ctx.signal.aborted).to.equal(false);
    ctx.cancel();
  });

  it('carries the earlier of two deadlines', () => {
    const outer = withTimeout(background(), 1_000, 'outer');
    const inner = withTimeout(outer, 60_000, 'inner');
    expect(inner.deadlineMs).to.equal(outer.deadlineMs);
    inner.cancel();
    outer.cancel();
  });
});

import { expect } from 'chai';

import { once } from '../../../lib/base/once.js';
import { rejection } from '../../tools/rejection.js';

describe('once', () => {
  it('is done once for all who ask, and again after a failure', async () => {
    let calls = 0;
    const ask = once(() => {
      calls += 1;
      return calls === 1 ? Promise.reject(new Error('too many open files')) : Promise.resolve(calls);
    });
    const both = [rejection(ask()), rejection(ask())];
    expect((await Promise.all(both)).map(String)).to.deep.equal(Array(2).fill('Error: too many open files'));
    expect(await Promise.all([ask(), ask()])).to.deep.equal([2, 2]);
    expect(await ask()).to.equal(2);
  });
});

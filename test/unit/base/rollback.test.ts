import { expect } from 'chai';

import { HerkosError } from '../../../lib/base/errors.js';
import { allOrError, withRollback } from '../../../lib/base/rollback.js';
import { rejection } from '../../tools/rejection.js';

describe('base/rollback', () => {
  it('undoes in reverse and throws what went wrong', async () => {
    const undone: string[] = [];
    const cause = new HerkosError('ResourceExhausted', 'no more ports');
    const error = await rejection(
      withRollback(async (undo) => {
        for (const name of ['first', 'second', 'third']) {
          undo.push(name, () => {
            undone.push(name);
            return Promise.resolve();
          });
        }
        return Promise.reject(cause);
      }),
    );
    expect(undone).to.deep.equal(['third', 'second', 'first']);
    expect(error).to.equal(cause);
  });

  it('undoes nothing after success', async () => {
    let undone = false;
    const value = await withRollback((undo) => {
      undo.push('it', () => {
        undone = true;
        return Promise.resolve();
      });
      return Promise.resolve(7);
    });
    expect([value, undone]).to.deep.equal([7, false]);
  });

  it('goes on after a failed undo and names it in the error', async () => {
    const undone: string[] = [];
    const error = await rejection(
      withRollback((undo) => {
        undo.push('the tap', () => {
          undone.push('the tap');
          return Promise.resolve();
        });
        undo.push('the disk', () => Promise.reject(new Error('busy')));
        return Promise.reject(new HerkosError('Unavailable', 'the guest is silent'));
      }),
    );
    expect(undone).to.deep.equal(['the tap']);
    expect(error).to.have.property('class', 'Unavailable');
    expect(error).to.have.property('message', 'the guest is silent (and could not undo the disk: busy)');
  });

  it('waits for both of two before it says that one failed', async () => {
    let isDone = false;
    const slow = new Promise<number>((resolve) => {
      setImmediate(() => {
        isDone = true;
        resolve(1);
      });
    });
    const error = await rejection(allOrError([Promise.reject(new Error('no')), slow]));
    expect({ error: String(error), isDone }).to.deep.equal({ error: 'Error: no', isDone: true });
    expect(await allOrError([slow, Promise.resolve('two')])).to.deep.equal([1, 'two']);
  });
});

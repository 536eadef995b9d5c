import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect } from 'chai';

import { errorsDoc, errorsDocPath, errorsIn } from './errors-doc.js';
import { projectRoot } from './project.js';

describe('docs/errors.md', () => {
  it('equals what the program says; run hack/errors-doc when it does not', () => {
    expect(readFileSync(join(projectRoot, errorsDocPath), 'utf8')).to.equal(errorsDoc(projectRoot));
  });

  it('names class, reason and the shape of the message', () => {
    const text =
      "throw new HerkosError('NotFound', `no ${kind} ${String(a.id)}; look`, { reason: 'NO_SUCH', cause });";
    expect(errorsIn('a.ts', text)).to.deep.equal([
      { reason: 'NO_SUCH', class: 'NotFound', message: 'no <kind> <id>; look' },
    ]);
  });

  it('names both classes of a choice', () => {
    const text = "new HerkosError(late ? 'Aborted' : 'Unavailable', 'gone', { reason: 'GONE' })";
    expect(errorsIn('a.ts', text).map((error) => error.class)).to.deep.equal(['Aborted', 'Unavailable']);
  });

  it('refuses a reason that is not written like one', () => {
    expect(() => errorsIn('a.ts', "new HerkosError('Aborted', 'x', { reason: 'gone' })")).to.throw(
      'UPPER_SNAKE',
    );
  });
}).timeout(120_000);

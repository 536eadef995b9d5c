import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';

import { expect } from 'chai';

import { daemonNodeFlags } from '../../../cmd/herkosd/node-flags.js';

const compiled = resolve(import.meta.dirname, '../../../cmd/herkosd/main.js');

describe('the start of herkosd', () => {
  it('is the same by its name as by tests and quickstart', () => {
    const [first] = readFileSync(compiled, 'utf8').split('\n');
    expect(first).to.equal(`#!/usr/bin/env -S node ${daemonNodeFlags.join(' ')}`);
  });
});

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

import { expect } from 'chai';

import { daemonNodeFlags } from '../../../cmd/herkosd/node-flags.js';

const compiled = resolve(import.meta.dirname, '../../../cmd/herkosd/main.js');

describe('the start of herkosd', () => {
  it('is the same by its name as by tests and quickstart', () => {
    const [first] = readFileSync(compiled, 'utf8').split('\n');
    expect(first).to.equal(`#!/usr/bin/env -S node ${daemonNodeFlags.join(' ')}`);
  });

  it('is refused with sizes that no node can give, by --check too', () => {
    const directory = mkdtempSync(join(tmpdir(), 'herkos-check-'));
    try {
      const config = join(directory, 'herkosd.toml');
      const node = `[node]\nstate_dir = "${directory}/state"\nrun_dir = "${directory}/run"\n`;
      for (const memory of ['1MiB', '4096TiB'])
        for (const more of [['--check'], []]) {
          writeFileSync(config, `${node}[vm]\nmemory = "${memory}"\nqemu = "/nowhere/qemu"\n`);
          const { status, stderr } = spawnSync(process.execPath, [compiled, '--config', config, ...more], {
            encoding: 'utf8',
            timeout: 20_000,
          });
          expect(status, memory).to.equal(1);
          expect(stderr).to.include('herkosd: the configuration does not fit this node: vm.memory: ');
        }
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

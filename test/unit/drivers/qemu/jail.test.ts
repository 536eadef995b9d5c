import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { background } from '../../../../lib/base/context.js';
import { HerkosError } from '../../../../lib/base/errors.js';
import type { Exec } from '../../../../lib/base/exec.js';
import { JailDevices } from '../../../../lib/drivers/qemu/jail.js';
import { rejection } from '../../../tools/rejection.js';

const ctx = background();
const nodes = ['kvm', 'net/tun', 'null'];

describe('the devices of the jail', () => {
  let directory: string;
  let groups: Map<string, string>;
  let failing: HerkosError | undefined;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'hk-jail-'));
    groups = new Map();
    failing = undefined;
  });

  afterEach(async () => rm(directory, { recursive: true, force: true }));

  const exec: Exec = {
    run: async (_ctx, program, args) => {
      if (program === 'mknod') await writeFile(args[2] ?? '', '');
      if (program === 'chgrp') {
        if (failing !== undefined) throw failing;
        const [gid = '', ...paths] = args;
        for (const path of paths) groups.set(path, gid);
      }
      return { exitCode: 0, stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) };
    },
  };
  const expectGroup = (gid: string): void => {
    for (const node of nodes) expect(groups.get(join(directory, 'dev', node)), node).to.equal(gid);
    expect(groups.get(join(directory, 'dev'))).to.equal(gid);
  };

  it('get their group though an earlier try ended before that', async () => {
    failing = new HerkosError('DeadlineExceeded', 'preparing the jail took longer than 10000 ms');
    expect(await rejection(new JailDevices(exec, directory, 4242).ensure(ctx))).to.equal(failing);
    failing = undefined;
    await new JailDevices(exec, directory, 4242).ensure(ctx);
    expectGroup('4242');
  });

  it('have the group of this daemon, whatever the one before had', async () => {
    await new JailDevices(exec, directory, 4242).ensure(ctx);
    await new JailDevices(exec, directory, 4343).ensure(ctx);
    expectGroup('4343');
  });
});

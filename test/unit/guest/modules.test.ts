import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { expect } from 'chai';

import { sections } from '../../../guest/elf.js';
import { loadOrder, moduleInfo, openModuleTree, trimModule } from '../../../guest/modules.js';
import type { ModuleTree } from '../../../guest/modules.js';
import { rejection } from '../../tools/rejection.js';
import { objectFile } from './elf-builder.js';

function module(depends: string, ...more: string[]): Buffer {
  const info = ['license=GPL', `depends=${depends}`, ...more].join('\0');
  return objectFile([
    { name: '.text', data: Buffer.alloc(99, 0x90), align: 16 },
    { name: '.modinfo', data: Buffer.from(`${info}\0`) },
    { name: '.BTF', data: Buffer.alloc(5000, 1) },
    { name: '.bss', type: 8, data: Buffer.alloc(0), align: 32 },
    { name: '.comment', data: Buffer.alloc(100, 2) },
  ]);
}

function signed(file: Buffer): Buffer {
  const trailer = Buffer.alloc(12);
  trailer.writeUInt32BE(400, 8);
  return Buffer.concat([file, Buffer.alloc(400, 3), trailer, Buffer.from('~Module signature appended~\n')]);
}

describe('modules of the guest', () => {
  let directory: string;
  let tree: ModuleTree;

  before(async () => {
    directory = mkdtempSync(join(tmpdir(), 'herkos-modules-'));
    const put = (path: string, data: Buffer | string): void => {
      mkdirSync(dirname(join(directory, path)), { recursive: true });
      writeFileSync(join(directory, path), data);
    };
    put('modules.builtin', 'kernel/lib/built-in.ko\n');
    put('kernel/fs/top.ko', module('middle-one,low'));
    put('kernel/fs/middle-one.ko', module('low,built_in'));
    put('kernel/lib/low.ko', module(''));
    put('kernel/lib/alone.ko', module('missing'));
    put('kernel/a.ko', module('b'));
    put('kernel/b.ko', module('a'));
    tree = await openModuleTree(directory);
  });

  after(() => {
    rmSync(directory, { recursive: true });
  });

  const order = async (...wanted: string[]): Promise<string[]> =>
    (await loadOrder(tree, wanted)).map(({ name }) => name);

  it('load after what they depend on, each once, built-in ones not at all', async () => {
    expect(await order('top')).to.deep.equal(['low', 'middle_one', 'top']);
    expect(await order('middle-one', 'top', 'built_in')).to.deep.equal(['low', 'middle_one', 'top']);
  });

  it('leave out what is loaded already', async () => {
    const late = await loadOrder(tree, ['top'], new Set(['low']));
    expect(late.map(({ name }) => name)).to.deep.equal(['middle_one', 'top']);
  });

  it('must exist and not need themselves', async () => {
    expect(await rejection(order('nothing'))).to.have.property('class', 'NotFound');
    const error = await rejection(order('alone'));
    expect(String(error)).to.contain('no module missing (needed by alone)');
    expect(String(await rejection(order('a')))).to.contain('a → b');
  });

  it('say what they need', () => {
    const info = moduleInfo(module('x,y-z', 'softdep=pre: crc-a crc-b post: other', 'alias=crypto-q'), 'm');
    expect(info).to.deep.equal({ depends: ['x', 'y_z'], softPre: ['crc-a', 'crc-b'], aliases: ['crypto-q'] });
    expect(() => moduleInfo(objectFile([]), 'm')).to.throw('no kernel module');
  });

  it('lose signature, types and remarks, and nothing else', () => {
    const trimmed = trimModule(signed(module('low')), 'm');
    expect(trimmed.length).to.be.lessThan(1000);
    expect(moduleInfo(trimmed, 'm').depends).to.deep.equal(['low']);
    const kept = sections(trimmed, 'm');
    expect(kept.map(({ name }) => name)).to.deep.equal([
      '',
      '.text',
      '.modinfo',
      '',
      '.bss',
      '',
      '.shstrtab',
    ]);
    const text = kept[1];
    expect(text?.offset).to.equal(64);
    expect(trimmed.subarray(64, 64 + 99).equals(Buffer.alloc(99, 0x90))).to.be.true;
    expect(trimModule(trimmed, 'm').equals(trimmed)).to.be.true;
  });

  it('must be ELF files that are whole', () => {
    const file = module('low');
    for (const bytes of [0, 10, 63, 64, 200, file.length - 1])
      expect(() => trimModule(file.subarray(0, bytes), 'm'), String(bytes)).to.throw(
        /m (is no ELF|ends before)/,
      );
  });
});

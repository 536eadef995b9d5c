import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { expect } from 'chai';

import { programClosure } from '../../../guest/closure.js';
import { fetchPackages, parseUriLine, resolvePackages } from '../../../guest/packages.js';
import { background } from '../../../lib/base/context.js';
import type { Exec } from '../../../lib/base/exec.js';
import { rejection } from '../../tools/rejection.js';
import { elfFile } from './elf-builder.js';

const ctx = background();
const content = Buffer.from('a package');
const sha256 = createHash('sha256').update(content).digest('hex');

/** Answers programs by their name. */
function fakeExec(
  answers: Readonly<Record<string, (args: readonly string[], cwd?: string) => string>>,
): Exec {
  return {
    run: (_ctx, program, args, options) => {
      const stdout = Buffer.from(answers[program]?.(args, options?.cwd) ?? '');
      return Promise.resolve({ exitCode: 0, stdout, stderr: Buffer.alloc(0) });
    },
  };
}

describe('packages of the guest', () => {
  let directory: string;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'herkos-packages-'));
  });

  afterEach(() => {
    rmSync(directory, { recursive: true });
  });

  it('are read from what apt prints', () => {
    const line = `'http://deb.example/pool/c/crun_1%3a2.3-1%2bdeb12u1_amd64.deb' crun_1%3a2.3-1+deb12u1_amd64.deb 289288 SHA256:${sha256}`;
    expect(parseUriLine(line)).to.deep.equal({
      name: 'crun',
      version: '1:2.3-1+deb12u1',
      fileName: 'crun_1%3a2.3-1+deb12u1_amd64.deb',
      sha256,
    });
    for (const bad of ['', 'nonsense', line.replace("' crun", "' ../crun"), line.replace('SHA256', 'MD5Sum')])
      expect(() => parseUriLine(bad)).to.throw('not understood');
  });

  it('are those that the metapackage and the runtime stand for', async () => {
    const exec = fakeExec({
      'apt-cache': () => 'Package: linux-image-amd64\nDepends: linux-image-6.1.0-99-amd64 (= 6.1.200-1)\n',
      // It does not name a package that is in the working directory.
      'apt-get': (args, cwd) =>
        args
          .slice(2)
          .filter(() => cwd === '/sys')
          .map((name) => `'http://x/${name}.deb' ${name}_1.0_amd64.deb 9 SHA256:${sha256}\n`)
          .join(''),
    });
    const { kernel, runtime } = await resolvePackages(ctx, exec);
    expect(kernel.name).to.equal('linux-image-6.1.0-99-amd64');
    expect(runtime.map(({ name }) => name)).to.include('crun');
    const empty = await rejection(resolvePackages(ctx, fakeExec({})));
    expect(empty).to.have.property('class', 'FailedPrecondition');
  });

  it('are fetched once, checked, and thrown away when they are old', async () => {
    const one = { name: 'a', version: '1', fileName: 'a_1_amd64.deb', sha256 };
    let fetched = 0;
    let bytes = content;
    const exec = fakeExec({
      'apt-get': (args, cwd) => {
        fetched += 1;
        expect(args.slice(-1)).to.deep.equal(['a=1']);
        writeFileSync(join(cwd ?? '', one.fileName), bytes);
        return '';
      },
    });
    writeFileSync(join(directory, 'a_0_amd64.deb'), 'old');
    await fetchPackages(ctx, exec, [one], directory);
    await fetchPackages(ctx, exec, [one], directory);
    expect(fetched).to.equal(1);
    expect(existsSync(join(directory, 'a_0_amd64.deb'))).to.be.false;
    bytes = Buffer.from('something else');
    writeFileSync(join(directory, one.fileName), 'broken');
    expect(await rejection(fetchPackages(ctx, exec, [one], directory))).to.have.property('class', 'DataLoss');
  });

  describe('the files a program needs', () => {
    const put = (path: string, data: Buffer): void => {
      mkdirSync(dirname(join(directory, path)), { recursive: true });
      writeFileSync(join(directory, path), data);
    };
    const loader = '/lib64/ld.so';
    /** A program or library that names its libraries as the linker writes them. */
    const linked = (libraries: readonly string[], interpreter?: string): Buffer => {
      const strings = Buffer.from(`\0${libraries.join('\0')}\0`);
      const entries = [
        ...libraries.map((name) => [1, strings.indexOf(`\0${name}\0`) + 1]),
        [5, 0x1000],
        [0, 0],
      ];
      const dynamic = Buffer.alloc(entries.length * 16);
      entries.forEach(([tag = 0, value = 0], index) => {
        dynamic.writeBigUInt64LE(BigInt(tag), index * 16);
        dynamic.writeBigUInt64LE(BigInt(value), index * 16 + 8);
      });
      return elfFile([
        { type: 1, data: strings, address: 0x1000 },
        { type: 2, data: dynamic },
        ...(interpreter === undefined ? [] : [{ type: 3, data: Buffer.from(`${interpreter}\0`) }]),
      ]);
    };

    it('are found through libraries of libraries and links', async () => {
      put('usr/bin/prog', linked(['liba.so.1'], loader));
      put('usr/lib/x86_64-linux-gnu/liba.so.1.2', linked(['libb.so', 'libc.so']));
      symlinkSync('liba.so.1.2', join(directory, 'usr/lib/x86_64-linux-gnu/liba.so.1'));
      put('lib/x86_64-linux-gnu/libb.so', linked(['libc.so']));
      put('lib/x86_64-linux-gnu/libc.so', linked([]));
      put('lib/x86_64-linux-gnu/ld-2.so', linked([]));
      mkdirSync(join(directory, 'lib64'));
      // Absolute, as Debian has it: it means the root of the packages and not the host's.
      symlinkSync('/lib/x86_64-linux-gnu/ld-2.so', join(directory, 'lib64/ld.so'));
      const files = await programClosure(directory, '/usr/bin/prog');
      expect(files.map(({ path }) => path)).to.deep.equal([
        '/lib/x86_64-linux-gnu/libb.so',
        '/lib/x86_64-linux-gnu/libc.so',
        loader,
        '/usr/bin/prog',
        '/usr/lib/x86_64-linux-gnu/liba.so.1',
      ]);
    });

    it('must all be there', async () => {
      put('usr/bin/prog', linked(['libgone.so']));
      expect(String(await rejection(programClosure(directory, '/usr/bin/prog')))).to.contain(
        'libgone.so that /usr/bin/prog needs',
      );
      symlinkSync('loop', join(directory, 'usr/bin/loop'));
      expect(String(await rejection(programClosure(directory, '/usr/bin/loop')))).to.contain(
        'circle of links',
      );
    });
  });
});

import { chmod, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { background } from '../../../../lib/base/context.js';
import { HerkosError } from '../../../../lib/base/errors.js';
import type { Exec, Launcher } from '../../../../lib/base/exec.js';
import { systemExec } from '../../../../lib/base/exec.js';
import type { Logger } from '../../../../lib/base/logger.js';
import { silentLogger } from '../../../../lib/base/logger.js';
import type { KvmProof } from '../../../../lib/drivers/qemu/kvm-proof.js';
import { KvmProver, judge } from '../../../../lib/drivers/qemu/kvm-proof.js';
import { AcceleratorProbe } from '../../../../lib/drivers/qemu/probe.js';
import type { QemuSettings } from '../../../../lib/drivers/qemu/settings.js';
import { qemuDefaults } from '../../../../lib/drivers/qemu/settings.js';

const ctx = background();
const result = { exitCode: 0, stdout: Buffer.from('QEMU 1\n'), stderr: Buffer.alloc(0) };
/** Nothing is mounted, no node is made; programs that outlive the daemon are real ones. */
const exec: Exec & Launcher = { run: () => Promise.resolve(result), launch: systemExec.launch };

const boots: KvmProof = { kind: 'boots' };
const refused: KvmProof = { kind: 'refused', why: 'no' };
const silent: KvmProof = { kind: 'silent', why: 'took long' };
const unclear: KvmProof = { kind: 'unclear', why: 'too many open files' };

describe('the proof of KVM', () => {
  let directory: string;
  let settings: QemuSettings;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'herkos-kvm-'));
    const uid = process.getuid?.() ?? 0;
    settings = {
      ...qemuDefaults,
      instance: 'test',
      binary: 'qemu',
      hostHelper: join(directory, 'helper'),
      accel: 'auto',
      runDir: join(directory, 'r'),
      stateDir: join(directory, 'state'),
      guest: { kernel: '/k', initramfs: '/i', root: undefined, commandLine: '', digest: 'd' },
      layerDevice: 'virtio-pmem',
      uidFirst: uid,
      uidCount: 0,
      sharedGid: uid,
      bootTimeoutMs: 1000,
      console: false,
    };
  });

  afterEach(async () => {
    await rm(directory, { recursive: true });
  });

  /** The answer of a daemon that starts while boots go so, and how many it needs. */
  async function answer(...proofs: KvmProof[]): Promise<string> {
    const warnings: string[] = [];
    const logger: Logger = { ...silentLogger, warn: (message) => warnings.push(message) };
    let count = 0;
    const boot = (): Promise<KvmProof> => Promise.resolve(proofs[count++] ?? unclear);
    const probe = new AcceleratorProbe({ settings, exec, logger, prover: { boot }, device: '/dev/null' });
    const { accelerator } = await probe.verdict(ctx);
    await probe.verdict(ctx);
    return [accelerator, String(count), ...(warnings.length > 0 ? ['warned'] : [])].join(' ');
  }

  it('is remembered when it says something about KVM', async () => {
    expect(await answer(boots)).to.equal('kvm 1');
    expect(await answer()).to.equal('kvm 0');
    settings = { ...settings, guest: { ...settings.guest, digest: 'another' } };
    expect(await answer(refused)).to.equal('tcg 1');
    expect(await answer()).to.equal('tcg 0');
  });

  it('is made twice before silence counts', async () => {
    expect(await answer(silent, boots)).to.equal('kvm 2');
    settings = { ...settings, guest: { ...settings.guest, digest: 'another' } };
    expect(await answer(silent, silent)).to.equal('tcg 2');
    expect(await answer()).to.equal('tcg 0');
  });

  it('is made again by the next daemon when something else failed', async () => {
    expect(await answer(unclear)).to.equal('tcg 1 warned');
    expect(await answer(silent, unclear)).to.equal('tcg 2 warned');
    expect(await answer(boots)).to.equal('kvm 1');
  });

  it('counts though it cannot be remembered', async () => {
    await writeFile(settings.stateDir, 'not a directory');
    expect(await answer(boots)).to.equal('kvm 1 warned');
    expect(await readFile(settings.stateDir, 'utf8')).to.equal('not a directory');
  });

  it('is refused by QEMU, not by what was short on the way to it', () => {
    const late = new HerkosError('DeadlineExceeded', 'took long');
    const ended = new Error('ended');
    const words = 'qemu-system-x86_64: failed to initialize kvm: Operation not permitted';
    const full = 'qemu-system-x86_64: -chardev socket: Failed to bind: No space left on device';
    const jail = 'herkos-host: cannot open /dev/kvm: Too many open files';
    const kinds = [
      judge(late, undefined, true),
      judge(late, undefined, false),
      judge(ended, undefined, true),
      judge(ended, { exitCode: 1, lastWords: words }, false),
      judge(ended, { signal: 'SIGABRT', lastWords: '' }, true),
      judge(ended, { exitCode: 1, lastWords: full }, false),
      judge(ended, { exitCode: 1, lastWords: jail }, false),
      judge(ended, { signal: 'SIGKILL', lastWords: words }, true),
      judge(ended, { lastWords: words }, true),
    ].map(({ kind }) => kind);
    expect(kinds).to.deep.equal([
      ...['silent', 'unclear', 'unclear'],
      ...['refused', 'refused'],
      ...['unclear', 'unclear', 'unclear', 'unclear'],
    ]);
  });

  it('sees how a program ends, and leaves nothing behind', async () => {
    const helper = async (script: string): Promise<KvmProof> => {
      await writeFile(settings.hostHelper, `#!/bin/sh\n${script}\n`);
      await chmod(settings.hostHelper, 0o755);
      return new KvmProver(settings, exec).boot(ctx);
    };
    expect((await helper('echo "no KVM here" >&2; exit 1')).kind).to.equal('refused');
    expect((await helper('echo "no room" >&2; exit 1')).kind).to.equal('unclear');
    expect(await readdir(join(settings.runDir, 'vm'))).to.deep.equal([]);
    await rm(settings.hostHelper);
    expect((await new KvmProver(settings, exec).boot(ctx)).kind).to.equal('unclear');
  });
});

/** R1 for logs: whatever moment a daemon dies at, no line is lost and none is written twice. */
import { expect } from 'chai';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { HerkosError } from '../../../lib/base/errors.js';
import { silentLogger } from '../../../lib/base/logger.js';
import type { LogFiles, OpenLog } from '../../../lib/pod/output/files.js';
import { systemLogFiles } from '../../../lib/pod/output/files.js';
import { LogPump } from '../../../lib/pod/output/log-pump.js';
import { LogWriter } from '../../../lib/pod/output/log-writer.js';
import type { Guest } from '../../../lib/pod/ports.js';
import { frame } from '../../../lib/wire/crilog/framing.js';
import { parseLogLine } from '../../../lib/wire/crilog/line.js';
import { FakeStream } from '../../fakes/pod-guest.js';
import { eventually } from '../../tools/eventually.js';
import { rejection } from '../../tools/rejection.js';

/** File operations that die, for good, at the nth one; an append that dies has written a part. */
class DyingFiles {
  count = 0;
  isDead = false;
  /** Appends fail so often with a full disk, after writing a part. */
  fullAppends = 0;

  constructor(
    readonly dieAt = Number.POSITIVE_INFINITY,
    readonly afterEffect = true,
  ) {}

  /** Files that a dead process had open are closed by the kernel. */
  readonly #open: OpenLog[] = [];

  async release(): Promise<void> {
    this.isDead = true;
    await Promise.all(this.#open.splice(0).map((log) => log.close().catch(() => undefined)));
  }

  /** What the test changes is not what the compiler sees. */
  get isGone(): boolean {
    return this.isDead;
  }

  async #through<T>(effect: () => Promise<T>, partly?: () => Promise<unknown>): Promise<T> {
    if (this.isDead) return new Promise<T>(() => undefined);
    this.count += 1;
    if (this.count >= this.dieAt) {
      this.isDead = true;
      await (this.afterEffect ? effect() : partly?.());
      return new Promise<T>(() => undefined);
    }
    const result = await effect();
    return this.isGone ? new Promise<T>(() => undefined) : result;
  }

  get files(): LogFiles {
    return {
      open: (path, create) =>
        this.#through(async () => {
          const log = await systemLogFiles.open(path, create);
          return log === undefined ? undefined : this.#guard(log);
        }),
      findByInode: (directory, inode) => this.#through(() => systemLogFiles.findByInode(directory, inode)),
      readCursor: (path) => this.#through(() => systemLogFiles.readCursor(path)),
      writeCursor: (path, text) => this.#through(() => systemLogFiles.writeCursor(path, text)),
      removeGone: (path) => this.#through(() => systemLogFiles.removeGone(path)),
    };
  }

  #guard(log: OpenLog): OpenLog {
    if (this.isGone) void log.close();
    else this.#open.push(log);
    const part = (data: Buffer): Promise<void> => log.append(data.subarray(0, Math.ceil(data.length * 0.6)));
    return {
      inode: log.inode,
      size: () => this.#through(() => log.size()),
      append: (data) =>
        this.#through(
          async () => {
            if (this.fullAppends > 0) {
              this.fullAppends -= 1;
              await part(data);
              throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
            }
            await log.append(data);
          },
          () => part(data),
        ),
      truncate: (bytes) => this.#through(() => log.truncate(bytes)),
      read: (position, length) => this.#through(() => log.read(position, length)),
      close: () => log.close(),
    };
  }
}

class FakeOutput {
  readonly stdout = new FakeStream();
  readonly stderr = new FakeStream();

  readonly readOutput: Guest['readOutput'] = (ctx, _id, name, from) => this[name].read(ctx, from);
}

describe('the output of a container', function () {
  this.timeout(60_000);
  let directory: string;
  let output: FakeOutput;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'herkos-output-'));
    output = new FakeOutput();
  });

  afterEach(async () => {
    await rm(directory, { recursive: true, force: true });
  });

  const logPath = (): string => join(directory, 'logs', 'app', '0.log');

  async function pumpOf(files: LogFiles, how: 'create' | 'recover', path = logPath()): Promise<LogPump> {
    const options = { files, logPath: path, cursorPath: join(directory, 'cursor'), log: silentLogger };
    const writer = await (how === 'create' ? LogWriter.create(options) : LogWriter.recover(options));
    const pump = new LogPump({ containerId: 'c', writer, tty: false, log: silentLogger });
    pump.attach(output);
    return pump;
  }

  /** All log files of the directory, oldest first by rotation name, as the pieces of each stream. */
  async function logged(): Promise<{ stdout: string[]; stderr: string[] }> {
    const names = (await readdir(dirname(logPath()))).sort((a, b) => b.localeCompare(a));
    const result = { stdout: [] as string[], stderr: [] as string[] };
    for (const name of names) {
      const text = await readFile(join(dirname(logPath()), name));
      expect(text.length === 0 || text.at(-1) === 10, `${name} ends with a whole line`).to.equal(true);
      for (const line of text.toString('latin1').split('\n').slice(0, -1)) {
        const parsed = parseLogLine(Buffer.from(line, 'latin1'));
        if (parsed === undefined) throw new Error(`not a log line: ${line.slice(0, 80)}`);
        result[parsed.stream].push(`${parsed.tag} ${parsed.content.toString('latin1')}`);
      }
    }
    return result;
  }

  function expected(stream: FakeStream): string[] {
    return frame(stream.data, stream.ended).pieces.map(
      (one) => `${one.tag} ${one.content.toString('latin1')}`,
    );
  }

  async function expectAll(): Promise<void> {
    expect(await logged()).to.deep.equal({
      stdout: expected(output.stdout),
      stderr: expected(output.stderr),
    });
  }

  function writeSome(round: number): void {
    output.stdout.write(`out ${String(round)} a\nout ${String(round)} b\n${'x'.repeat(round * 9000)}\nhalf`);
    output.stderr.write(`err ${String(round)}\n`);
  }

  function finish(): void {
    output.stdout.end();
    output.stderr.end();
  }

  it('is complete and framed', async () => {
    const pump = await pumpOf(systemLogFiles, 'create');
    for (let round = 0; round < 5; round += 1) writeSome(round);
    finish();
    await pump.drained;
    await expectAll();
    expect(output.stdout.acknowledged).to.equal(BigInt(output.stdout.data.length));
    await pump.close();
  });

  for (const afterEffect of [true, false])
    it(`survives a daemon that dies ${afterEffect ? 'after' : 'in the middle of'} any file operation`, async () => {
      for (let dieAt = 4; ; dieAt += 1) {
        output = new FakeOutput();
        await rm(join(directory, 'logs'), { recursive: true, force: true });
        await rm(join(directory, 'cursor'), { force: true });
        const dying = new DyingFiles(dieAt, afterEffect);
        await pumpOf(dying.files, 'create');
        for (let round = 0; round < 4 && !dying.isDead; round += 1) {
          writeSome(round);
          await eventually(
            () => dying.isDead || output.stderr.acknowledged === BigInt(output.stderr.data.length),
          );
        }
        const isOver = !dying.isDead;
        await dying.release();
        // The container goes on while nobody reads.
        writeSome(7);
        // The second daemon dies too, a little later.
        const dyingAgain = new DyingFiles(2 + (dieAt % 7), afterEffect);
        void pumpOf(dyingAgain.files, 'recover').catch(() => undefined);
        writeSome(1);
        await eventually(
          () => dyingAgain.isDead || output.stderr.acknowledged === BigInt(output.stderr.data.length),
        );
        await dyingAgain.release();
        const third = await pumpOf(systemLogFiles, 'recover');
        writeSome(2);
        finish();
        await third.drained;
        await expectAll();
        await third.close();
        if (isOver) break;
      }
    });

  it('goes on in a new file after a rotation, and nothing goes to the old one', async () => {
    const pump = await pumpOf(systemLogFiles, 'create');
    output.stdout.write('before\n');
    await eventually(() => output.stdout.acknowledged === 7n);
    await rename(logPath(), `${logPath()}.1`);
    output.stdout.write('between\n');
    await eventually(() => output.stdout.acknowledged === 15n);
    await pump.reopen();
    expect(await readFile(logPath(), 'utf8')).to.equal('');
    output.stdout.write('after\n');
    finish();
    await pump.drained;
    expect(await readFile(`${logPath()}.1`, 'utf8')).to.match(/before\n.*between\n$/);
    expect(await readFile(logPath(), 'utf8')).to.match(/^\S+ stdout F after\n$/);
    await pump.close();
  });

  it('finds the file again that was renamed while no daemon ran', async () => {
    for (let dieAt = 4; dieAt < 12; dieAt += 1) {
      output = new FakeOutput();
      await rm(join(directory, 'logs'), { recursive: true, force: true });
      await rm(join(directory, 'cursor'), { force: true });
      const dying = new DyingFiles(dieAt);
      await pumpOf(dying.files, 'create');
      writeSome(1);
      await eventually(
        () => dying.isDead || output.stderr.acknowledged === BigInt(output.stderr.data.length),
      );
      await dying.release();
      await rename(logPath(), `${logPath()}.1`);
      const pump = await pumpOf(systemLogFiles, 'recover');
      writeSome(2);
      await pump.reopen();
      writeSome(3);
      finish();
      await pump.drained;
      await expectAll();
      await pump.close();
    }
  });

  it('survives a daemon that dies at any file operation of a rotation', async () => {
    for (let extra = 1; extra < 12; extra += 1) {
      output = new FakeOutput();
      await rm(join(directory, 'logs'), { recursive: true, force: true });
      await rm(join(directory, 'cursor'), { force: true });
      const probe = new DyingFiles();
      const first = await pumpOf(probe.files, 'create');
      writeSome(1);
      await eventually(() => output.stderr.acknowledged === BigInt(output.stderr.data.length));
      await rename(logPath(), `${logPath()}.1`);
      Object.defineProperty(probe, 'dieAt', { value: probe.count + extra });
      void first.reopen().catch(() => undefined);
      writeSome(2);
      await eventually(
        () => probe.isDead || output.stderr.acknowledged === BigInt(output.stderr.data.length),
      );
      await probe.release();
      const pump = await pumpOf(systemLogFiles, 'recover');
      writeSome(3);
      finish();
      await pump.drained;
      await expectAll();
      await pump.close();
    }
  });

  it('waits while the disk is full, and loses nothing', async () => {
    const full = new DyingFiles();
    const pump = await pumpOf(full.files, 'create');
    output.stdout.write('one\n');
    await eventually(() => output.stdout.acknowledged === 4n);
    full.fullAppends = 2;
    output.stdout.write('two\nthree\n');
    await eventually(() => full.fullAppends === 0);
    expect(output.stdout.acknowledged).to.equal(4n);
    finish();
    await pump.drained;
    await expectAll();
    await pump.close();
  });

  it('stops reading while much waits to be written', async () => {
    const full = new DyingFiles();
    const pump = await pumpOf(full.files, 'create');
    full.fullAppends = Number.POSITIVE_INFINITY;
    output.stdout.chunkBytes = 65_536;
    output.stdout.write(Buffer.alloc(8 * 1024 * 1024, 'x\n'));
    await eventually(() => full.count > 8);
    expect(output.stdout.acknowledged).to.equal(0n);
    // Closing does not wait for the disk.
    await pump.close();
  });

  it('keeps the old file in use when the new one cannot be made', async () => {
    const pump = await pumpOf(systemLogFiles, 'create');
    output.stdout.write('one\n');
    await eventually(() => output.stdout.acknowledged === 4n);
    await rename(logPath(), `${logPath()}.1`);
    await mkdir(logPath());
    expect(await rejection(pump.reopen())).to.be.instanceOf(HerkosError);
    await rm(logPath(), { recursive: true });
    output.stdout.write('two\n');
    finish();
    await pump.drained;
    await expectAll();
    await pump.close();
  });

  it('is dropped when the pod keeps no logs, but the guest may forget it', async () => {
    const pump = await pumpOf(systemLogFiles, 'create', '');
    output.stdout.write('one\n');
    finish();
    await pump.drained;
    expect(output.stdout.acknowledged).to.equal(4n);
    await pump.close();
    const again = await pumpOf(systemLogFiles, 'recover', '');
    await again.drained;
    await again.close();
  });

  it('starts anew, with a warning, when the cursor is lost', async () => {
    await writeFile(join(directory, 'cursor'), '{"version":1');
    const pump = await pumpOf(systemLogFiles, 'recover');
    output.stdout.write('one\n');
    finish();
    await pump.drained;
    await expectAll();
    await pump.close();
  });

  it('says that the guest left something out, and keeps the rest', async () => {
    const warnings: string[] = [];
    const log = { ...silentLogger, warn: (message: string) => void warnings.push(message) };
    const writer = await LogWriter.create({
      files: systemLogFiles,
      logPath: logPath(),
      cursorPath: join(directory, 'cursor'),
      log,
    });
    const pump = new LogPump({ containerId: 'c', writer, tty: true, log });
    const chunks = [
      { offset: 0n, data: Buffer.from('ab'), end: false },
      { offset: 10n, data: Buffer.from('cd\n'), end: false },
      { offset: 5n, data: Buffer.from('zzzzzcd\nef\n'), end: true },
    ];
    pump.attach({
      readOutput: () => ({
        acknowledge: () => undefined,
        async *[Symbol.asyncIterator]() {
          await Promise.resolve();
          yield* chunks;
        },
      }),
    });
    await pump.drained;
    expect((await logged()).stdout).to.deep.equal(['P ab', 'F cd', 'F ef']);
    expect(warnings).to.deep.equal(['the guest left out a part of the output']);
    await pump.close();
  });
});

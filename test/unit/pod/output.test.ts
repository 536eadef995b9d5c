/** R1 for logs: whatever moment a daemon dies at, no line is lost and none is written twice. */
import { expect } from 'chai';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { HerkosError } from '../../../lib/base/errors.js';
import { silentLogger } from '../../../lib/base/logger.js';
import type { Logger } from '../../../lib/base/logger.js';
import { encodeCursor, streamStart } from '../../../lib/pod/output/cursor.js';
import type { LogFiles } from '../../../lib/pod/output/files.js';
import { systemLogFiles } from '../../../lib/pod/output/files.js';
import { LogPump } from '../../../lib/pod/output/log-pump.js';
import { LogWriter } from '../../../lib/pod/output/log-writer.js';
import type { Guest } from '../../../lib/pod/ports.js';
import { frame } from '../../../lib/wire/crilog/framing.js';
import { parseLogLine } from '../../../lib/wire/crilog/line.js';
import { DyingFiles } from '../../fakes/dying-log-files.js';
import { FakeStream } from '../../fakes/pod-guest.js';
import { eventually } from '../../tools/eventually.js';
import { rejection } from '../../tools/rejection.js';

class FakeOutput {
  readonly stdout = new FakeStream();
  readonly stderr = new FakeStream();

  readonly readOutput: Guest['readOutput'] = (ctx, _id, name, from) => this[name].read(ctx, from);
}

function warningLog(): { readonly log: Logger; readonly warnings: string[] } {
  const warnings: string[] = [];
  return { log: { ...silentLogger, warn: (message) => void warnings.push(message) }, warnings };
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

  async function pumpOf(
    files: LogFiles,
    how: 'create' | 'recover',
    path = logPath(),
    log: Logger = silentLogger,
    guest: Pick<Guest, 'readOutput'> = output,
  ): Promise<LogPump> {
    const options = { files, logPath: path, cursorPath: join(directory, 'cursor'), log };
    const writer = await (how === 'create' ? LogWriter.create(options) : LogWriter.recover(options));
    const pump = new LogPump({ containerId: 'c', writer, tty: false, log });
    pump.attach(guest);
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

  it('says what to do when there is no place for it', async () => {
    await writeFile(join(directory, 'file'), '');
    const error = await rejection(pumpOf(systemLogFiles, 'create', join(directory, 'file/pod/0.log')));
    expect(error).to.have.property('class', 'FailedPrecondition');
    expect(String(error)).to.include('file/pod/0.log: ').and.to.include('give the pod a log_directory');
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

  const losses: readonly (readonly [string, (path: string) => Promise<void>])[] = [
    ['is deleted', (path) => rm(path)],
    ['is torn', (path) => writeFile(path, '{"version":1')],
    [
      'is from before there was any output',
      (path) => writeFile(path, encodeCursor({ inode: '', sizeBytes: 0, streams: streamStart })),
    ],
  ];
  for (const [how, lose] of losses)
    it(`goes on with what the guest keeps when the cursor ${how}`, async () => {
      const first = await pumpOf(systemLogFiles, 'create');
      output.stdout.write('one\ntwo\nthr');
      output.stderr.write('nothing more of this\n');
      await eventually(() => output.stdout.acknowledged === 8n && output.stderr.acknowledged === 21n);
      await first.close();
      await lose(join(directory, 'cursor'));
      const { log, warnings } = warningLog();
      const pump = await pumpOf(systemLogFiles, 'recover', logPath(), log);
      output.stdout.write('ee\nfour\n');
      finish();
      await pump.drained;
      expect(pump.isComplete).to.equal(true);
      await expectAll();
      expect(output.stdout.acknowledged).to.equal(19n);
      expect(warnings.filter((text) => text.startsWith('the guest does not keep'))).to.have.lengthOf(2);
      await pump.close();
    });

  it('is repeated when the cursor is lost before the guest has forgotten it', async () => {
    output.stdout.write('one\n');
    await writeFile(join(directory, 'cursor'), '{"version":1');
    const { log, warnings } = warningLog();
    const pump = await pumpOf(systemLogFiles, 'recover', logPath(), log);
    finish();
    await pump.drained;
    await expectAll();
    expect(warnings).to.deep.equal(['the output cursor is lost; log lines may be repeated or missing']);
    await pump.close();
  });

  it('says once that the guest leaves something out, and keeps the rest', async () => {
    const { log, warnings } = warningLog();
    const leaky = [
      { offset: 0n, data: Buffer.from('ab'), end: false },
      { offset: 10n, data: Buffer.from('cd\n'), end: false },
      { offset: 5n, data: Buffer.from('zzzzzcd\nef\n'), end: false },
      { offset: 100n, data: Buffer.from('gh\n'), end: true },
    ];
    const pump = await pumpOf(systemLogFiles, 'create', logPath(), log, {
      readOutput: (_ctx, _id, name) => ({
        acknowledge: () => undefined,
        async *[Symbol.asyncIterator]() {
          await Promise.resolve();
          if (name === 'stderr') yield { offset: 0n, data: Buffer.alloc(0), end: true };
          else yield* leaky;
        },
      }),
    });
    await pump.drained;
    expect((await logged()).stdout).to.deep.equal(['P ab', 'F cd', 'F ef', 'F gh']);
    expect(warnings).to.deep.equal([
      'the guest does not keep a part of the output any more; log lines may be missing',
    ]);
    await pump.close();
  });
});

import { appendFileSync } from 'node:fs';
import { appendFile, mkdir, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { expect } from 'chai';

import { buildProgram } from '../../../cmd/herkosctl/program.js';
import type { CancellableContext } from '../../../lib/base/context.js';
import { background, withTimeout } from '../../../lib/base/context.js';
import { Harness } from '../cri/harness.js';
import { herkosctl } from './cli.js';

const line = (text: string, tag = 'F'): string => `2026-01-01T00:00:00.000000001Z stdout ${tag} ${text}\n`;

/** Takes one write at a time, as a pipe that nobody empties in time. */
class SlowSink {
  readonly texts: string[] = [];
  writtenTooSoon = 0;
  #isFull = false;
  #onDrain: () => void = () => undefined;

  constructor(readonly onWrite: () => void = () => undefined) {}

  write(text: string | Uint8Array): boolean {
    if (this.#isFull) this.writtenTooSoon += 1;
    this.#isFull = true;
    this.texts.push(Buffer.from(text as string).toString());
    this.onWrite();
    setImmediate(() => {
      this.#isFull = false;
      this.#onDrain();
    });
    return false;
  }

  once(_event: 'drain', listener: () => void): void {
    this.#onDrain = listener;
  }
}

describe('herkosctl logs of large files', () => {
  let cri: Harness;
  let ctx: CancellableContext;
  let path: string;
  let containerId: string;
  beforeEach(async () => {
    cri = await Harness.start();
    ctx = withTimeout(background(), 20_000, 'test');
    const podSandboxId = await cri.sandbox('web', { logDirectory: join(cri.directory, 'pod') });
    containerId = await cri.container(podSandboxId);
    path = cri.pods.container(containerId).logPath;
    await mkdir(dirname(path), { recursive: true });
  });
  afterEach(async () => {
    ctx.cancel();
    await cri.stop();
  });

  const logs = async (...args: string[]): Promise<string> => {
    const { stdout, error } = await herkosctl(cri.socketPath, ['logs', ...args, 'web'], ctx);
    expect(error).to.equal(undefined);
    return stdout;
  };
  const logsTo = async (stdout: SlowSink, ...args: string[]): Promise<void> => {
    const program = buildProgram(ctx, { stdout, stderr: new SlowSink() });
    await program.parseAsync(['node', 'herkosctl', '--socket', cri.socketPath, 'logs', ...args, 'web']);
  };
  const numbered = (from: number, to: number): string[] =>
    Array.from({ length: to - from }, (_, index) => `${String(from + index)} ${'x'.repeat(1000)}`);

  for (const args of [[], ['--tail', '300'], ['-o', 'json']])
    it(`writes no faster than it is read, and ends where the file ended: ${args.join(' ')}`, async () => {
      await writeFile(
        path,
        numbered(0, 300)
          .map((text) => line(text))
          .join(''),
      );
      const sink = new SlowSink(() => {
        appendFileSync(path, line('new').repeat(1000));
      });
      await logsTo(sink, ...args);
      expect(sink.writtenTooSoon).to.equal(0);
      expect(sink.texts).to.have.length(300);
      expect(sink.texts[299]).to.contain('299 x');
    });

  it('follows from the tail on, and waits for a slow reader then too', async () => {
    await writeFile(
      path,
      numbered(0, 300)
        .map((text) => line(text))
        .join(''),
    );
    let isFirst = true;
    const sink = new SlowSink(() => {
      if (!isFirst) return;
      isFirst = false;
      appendFileSync(path, line('new'));
      cri.pods.exit(containerId, 0);
    });
    await cri.call(cri.rpc.startContainer, { containerId });
    await logsTo(sink, '-f', '--tail', '2');
    expect(sink.writtenTooSoon).to.equal(0);
    expect(sink.texts.map((text) => text.slice(0, 4))).to.deep.equal(['298 ', '299 ', 'new\n']);
  });

  it('finds the tail without reading the rest of the file', async () => {
    await writeFile(path, line('first'));
    // A hole takes no place on the disk, but as long to read as any other part.
    await truncate(path, 256 * 2 ** 30);
    await appendFile(path, `\n${line('a')}${line('b')}`);
    expect(await logs('--tail', '1')).to.equal('b\n');
    expect(await logs('--tail', '2')).to.equal('a\nb\n');
  }).timeout(15_000);

  it('finds the tail wherever blocks meet lines', async () => {
    const block = 64 * 1024;
    const last = line('last');
    for (const shift of [-130, -40, -1, 0, 1, 40, 130]) {
      const head = line('').length;
      const long = line('y'.repeat(block - head - last.length + shift));
      await writeFile(path, line('z'.repeat(300)) + line('one') + long + last);
      expect(await logs('--tail', '1'), String(shift)).to.equal('last\n');
      expect((await logs('--tail', '2')).slice(0, 2), String(shift)).to.equal('yy');
      expect((await logs('--tail', '3')).slice(0, 5), String(shift)).to.equal('one\ny');
      expect((await logs('--tail', '9')).slice(0, 2), String(shift)).to.equal('zz');
    }
  });

  it('counts neither a torn line nor what is no line of a log', async () => {
    await writeFile(path, `${line('a')}noise\n${line('b', 'P')}noise\n\ntorn`);
    expect(await logs('--tail', '0')).to.equal('');
    expect(await logs('--tail', '1')).to.equal('b');
    expect(await logs('--tail', '2')).to.equal('a\nb');
  });

  it('never takes a part of a line that is too long for a line', async () => {
    // Its first part is given up where a read ends, and what follows looks like a line of its own.
    await writeFile(path, 'x'.repeat(17 * 64 * 1024) + line('inside') + line('after'));
    expect(await logs()).to.equal('after\n');
  });

  it('ends on Ctrl-C while nobody reads', async () => {
    await writeFile(path, line('a') + line('b'));
    const sink = new SlowSink();
    sink.once = () => {
      ctx.cancel();
    };
    const error: unknown = await logsTo(sink).catch((thrown: unknown) => thrown);
    expect(error).to.have.property('class', 'Cancelled');
    expect(sink.texts).to.have.length(1);
  });
}).timeout(30_000);

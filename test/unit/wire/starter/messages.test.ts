import { expect } from 'chai';
import fc from 'fast-check';

import { HerkosError } from '../../../../lib/base/errors.js';
import {
  ReportParser,
  encodeKill,
  encodeLaunch,
  encodeOrder,
} from '../../../../lib/wire/starter/messages.js';
import type { LockReport, ProgramReport } from '../../../../lib/wire/starter/messages.js';

const bytesMax = 1000;

type Report = ProgramReport | LockReport;

function parse(bytes: Buffer, pieceSizes: readonly number[] = [bytes.length]): Report[] {
  const parser = new ReportParser(bytesMax);
  const found: Report[] = [];
  for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
    const size = Math.max(1, pieceSizes[turn % pieceSizes.length] ?? 1);
    found.push(...parser.push(bytes.subarray(at, at + size)));
    at += size;
  }
  return found;
}

function encode(report: Report): Buffer {
  if (report.kind === 'started' || report.kind === 'lock') {
    const { kind: _kind, ...line } = report;
    return Buffer.from(`${JSON.stringify(line)}\n`);
  }
  if (report.kind === 'not-started')
    return Buffer.from(`${JSON.stringify({ id: report.id, errno: report.errno })}\n`);
  const { id, exitCode, signal, stdout, stderr, isOverflown } = report;
  const line = {
    id,
    code: exitCode ?? null,
    signal: signal ?? null,
    stdout: stdout.length,
    stderr: stderr.length,
    overflown: isOverflown,
  };
  return Buffer.concat([Buffer.from(`${JSON.stringify(line)}\n`), stdout, stderr]);
}

describe('messages of the starter', () => {
  const output = fc.uint8Array({ maxLength: bytesMax / 2 }).map((bytes) => Buffer.from(bytes));
  const report = fc.oneof(
    fc.record({ kind: fc.constant('not-started' as const), id: fc.nat(), errno: fc.nat(200) }),
    fc.record({
      kind: fc.constant('started' as const),
      id: fc.nat(),
      pid: fc.nat(),
      startTicks: fc.nat().map(String),
    }),
    fc.record({
      kind: fc.constant('ended' as const),
      id: fc.nat(),
      exitCode: fc.option(fc.nat(255), { nil: undefined }),
      signal: fc.option(fc.nat(64), { nil: undefined }),
      stdout: output,
      stderr: output,
      isOverflown: fc.boolean(),
    }),
    fc.constant({ kind: 'lock' as const, lock: 'taken' as const }),
    fc.record({ kind: fc.constant('lock' as const), lock: fc.constant('held' as const), pid: fc.nat() }),
    fc.record({ kind: fc.constant('lock' as const), lock: fc.constant('failed' as const), errno: fc.nat() }),
  );

  it('are put together from any pieces', () => {
    fc.assert(
      fc.property(
        fc.array(report, { maxLength: 5 }),
        fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 5 }),
        (reports, pieces) => {
          expect(parse(Buffer.concat(reports.map(encode)), pieces)).to.deep.equal(reports);
        },
      ),
    );
  });

  it('are orders of one line and the input behind it', () => {
    const order = encodeOrder({
      id: 1,
      program: 'x',
      args: ['a\nb'],
      outputMax: 5,
      input: Buffer.from('in\n'),
    });
    expect(order.toString()).to.equal(
      '{"id":1,"program":"x","args":["a\\nb"],"outputMax":5,"input":3}\nin\n',
    );
    const [line] = encodeOrder({
      id: 2,
      program: 'x',
      args: [],
      env: { A: '1' },
      cwd: '/',
      outputMax: 5,
      input: Buffer.alloc(0),
    })
      .toString()
      .split('\n');
    expect(JSON.parse(line ?? '')).to.deep.include({ env: [['A', '1']], cwd: '/', input: 0 });
    expect(
      encodeLaunch({ id: 3, program: 'x', args: ['a'], env: { A: '1' }, log: '/l' }).toString(),
    ).to.equal('{"id":3,"program":"x","args":["a"],"log":"/l","env":[["A","1"]]}\n');
    expect(encodeKill(7)).to.equal('{"kill":7}\n');
  });

  it('are not said when the starter would not take them', () => {
    const order = { id: 1, program: 'x', outputMax: 5 };
    for (const [args, input] of [
      [[], Buffer.alloc(65 * 1024 * 1024)],
      [['ü'.repeat(3 * 1024 * 1024)], Buffer.alloc(0)],
    ] as const)
      expect(() => encodeOrder({ ...order, args, input }))
        .to.throw(HerkosError)
        .with.property('class', 'ResourceExhausted');
  });

  it('are refused when no starter can have said them', () => {
    for (const text of [
      'x\n',
      '{}\n',
      '{"id":1}\n',
      '{"id":1,"errno":-1}\n',
      '{"lock":"held"}\n',
      '{"lock":"taken","id":1}\n',
      '{"id":1,"errno":2,"more":1}\n',
      '{"id":1,"code":0,"signal":null,"stdout":900,"stderr":200,"overflown":false}\n',
      'x'.repeat(5000),
      `${' '.repeat(5000)}\n`,
    ])
      expect(() => parse(Buffer.from(text)), text.slice(0, 60))
        .to.throw(HerkosError)
        .with.property('class', 'DataLoss');
  });

  it('are parsed or refused, whatever comes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 6000 }), (bytes) => {
        try {
          parse(Buffer.from(bytes));
        } catch (error) {
          expect(error).to.be.instanceOf(HerkosError);
        }
      }),
    );
  });
});

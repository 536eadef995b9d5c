import { expect } from 'chai';

import {
  encodeLines,
  formatLogTime,
  LogLineCounter,
  parseLogLine,
} from '../../../../lib/wire/crilog/line.js';

const time = '2026-01-02T03:04:05.000000007Z';

describe('CRI log lines', () => {
  it('writes the time with nine digits, in UTC', () => {
    expect(formatLogTime('1767323045000000007')).to.equal(time);
    expect(formatLogTime('1767323045999999999')).to.equal('2026-01-02T03:04:05.999999999Z');
    expect(formatLogTime('0')).to.equal('1970-01-01T00:00:00.000000000Z');
  });

  it('keeps the third space of an empty line', () => {
    const bytes = Buffer.concat(encodeLines(time, 'stdout', [{ tag: 'F', content: Buffer.alloc(0) }]));
    expect(bytes.toString()).to.equal(`${time} stdout F \n`);
  });

  it('reads back what it wrote', () => {
    const content = Buffer.from([0, 255, 32, 70]);
    const bytes = Buffer.concat(encodeLines(time, 'stderr', [{ tag: 'P', content }]));
    expect(parseLogLine(bytes.subarray(0, -1))).to.deep.equal({ time, stream: 'stderr', tag: 'P', content });
  });

  it('ignores tags it does not know, and refuses what is no log line', () => {
    expect(parseLogLine(Buffer.from(`${time} stdout F:later:x hi`))).to.include({ tag: 'F' });
    for (const line of ['', 'hello', `${time} stdin F x`, `${time} stdout X x`, '{"log":"x"}'])
      expect(parseLogLine(Buffer.from(line)), line).to.equal(undefined);
  });

  it('counts complete lines of each stream, whatever the chunks', () => {
    const log = Buffer.from(
      `${time} stdout F a\n${time} stderr P b\n${time} stdout F ${'x'.repeat(500)}\n${time} stdout F torn`,
    );
    for (const size of [1, 7, 64, 1000]) {
      const counter = new LogLineCounter();
      for (let at = 0; at < log.length; at += size) counter.push(log.subarray(at, at + size));
      expect(counter.counts).to.deep.equal({ stdout: 2, stderr: 1 });
      expect(counter.completeBytes).to.equal(log.lastIndexOf(10) + 1);
    }
  });
});

import { expect } from 'chai';
import fc from 'fast-check';

import { HerkosError } from '../../../../lib/base/errors.js';
import { QmpLineParser } from '../../../../lib/wire/qmp/line-parser.js';
import { decodeMessage, encodeCommand } from '../../../../lib/wire/qmp/message.js';

describe('qmp wire format', () => {
  it('reads what QEMU says', () => {
    const version = { qemu: { major: 7, minor: 2, micro: 22 }, package: 'x' };
    expect(decodeMessage(JSON.stringify({ QMP: { version, capabilities: ['oob'] } }))).to.deep.equal({
      kind: 'greeting',
      version: '7.2.22',
    });
    expect(decodeMessage('{"return": {"a": [1]}, "id": "7"}')).to.deep.equal({
      kind: 'result',
      id: '7',
      value: { a: [1] },
    });
    expect(
      decodeMessage('{"id": "8", "error": {"class": "DeviceNotFound", "desc": "no such device"}}'),
    ).to.deep.equal({
      kind: 'error',
      id: '8',
      error: { errorClass: 'DeviceNotFound', description: 'no such device' },
    });
    const stamp = { seconds: 1, microseconds: 2 };
    expect(
      decodeMessage(JSON.stringify({ event: 'DEVICE_DELETED', data: { device: 'd1' }, timestamp: stamp })),
    ).to.deep.equal({ kind: 'event', name: 'DEVICE_DELETED', data: { device: 'd1' } });
    expect(decodeMessage('{"event": "RESUME"}')).to.deep.equal({ kind: 'event', name: 'RESUME', data: {} });
  });

  it('writes one command a line, whatever the arguments hold', () => {
    const line = encodeCommand('1', 'object-add', { path: '/a\n"b' });
    expect(line.indexOf('\n')).to.equal(line.length - 1);
    expect(JSON.parse(line)).to.deep.equal({
      execute: 'object-add',
      arguments: { path: '/a\n"b' },
      id: '1',
    });
  });

  it('finds the same messages however the stream is cut', () => {
    const lines = ['{"event": "STOP"}', '{"return": "ä\\n", "id": "1"}', '{"return": {}, "id": "2"}'];
    const stream = Buffer.from(`${lines.join('\r\n')}\r\n\r\n`);
    const whole = lines.map((line) => decodeMessage(line));
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: stream.length })), (cuts) => {
        const parser = new QmpLineParser();
        const points = [0, ...cuts.sort((a, b) => a - b), stream.length];
        const found = points.flatMap((point, at) => parser.push(stream.subarray(points[at - 1] ?? 0, point)));
        expect(found).to.deep.equal(whole);
      }),
    );
  });

  it('answers garbage with an error, never with another failure', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (line) => {
        try {
          const message = decodeMessage(line);
          expect(message).to.have.property('kind');
        } catch (error) {
          expect(error).to.be.instanceOf(HerkosError).with.property('class', 'DataLoss');
        }
      }),
    );
  });

  it('bounds a line that never ends', () => {
    const parser = new QmpLineParser(1000);
    const endless = (): void => {
      for (let part = 0; part < 11; part += 1) parser.push(Buffer.alloc(100, 'x'));
    };
    expect(endless).to.throw(HerkosError, 'longer than 1000 bytes');
  });

  it('keeps only a part of an endless error text', () => {
    const message = decodeMessage(
      JSON.stringify({ id: '1', error: { class: 'x', desc: 'y'.repeat(100_000) } }),
    );
    expect(JSON.stringify(message)).to.have.length.lessThan(2000);
  });
});

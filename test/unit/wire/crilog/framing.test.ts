import { expect } from 'chai';
import fc from 'fast-check';

import type { Piece } from '../../../../lib/wire/crilog/framing.js';
import { frame, lineBytesMax } from '../../../../lib/wire/crilog/framing.js';

function shown(pieces: readonly Piece[]): string[] {
  return pieces.map((piece) => `${piece.tag} ${piece.content.toString('latin1')}`);
}

/** Feeds `data` in chunks of these sizes, as a pump does. */
function inChunks(data: Buffer, sizes: readonly number[]): string[] {
  const pieces: Piece[] = [];
  let rest = Buffer.alloc(0);
  let at = 0;
  for (const size of [...sizes, data.length]) {
    const chunk = data.subarray(at, at + size);
    at += chunk.length;
    const joined = Buffer.concat([rest, chunk]);
    const framed = frame(joined, at === data.length);
    pieces.push(...framed.pieces);
    rest = Buffer.from(joined.subarray(framed.consumed));
    if (at === data.length) break;
  }
  return shown(pieces);
}

const text = fc
  .array(
    fc.oneof(
      fc.constantFrom('\n', '\r\n', '\r', 'a', 'ü', ''),
      fc.nat(40_000).map((n) => 'x'.repeat(n)),
    ),
    {
      maxLength: 12,
    },
  )
  .map((parts) => Buffer.from(parts.join('')));

describe('CRI log framing', () => {
  it('makes a full line of each line, without its line break', () => {
    expect(shown(frame(Buffer.from('one\ntwo\r\n\nth'), false).pieces)).to.deep.equal([
      'F one',
      'F two',
      'F ',
    ]);
  });

  it('keeps what is not a line yet, and ends it as a partial line at the end of the stream', () => {
    expect(frame(Buffer.from('abc'), false)).to.deep.equal({ pieces: [], consumed: 0 });
    expect(shown(frame(Buffer.from('abc'), true).pieces)).to.deep.equal(['P abc']);
  });

  it('says F to a line of exactly the limit', () => {
    const line = 'x'.repeat(lineBytesMax);
    expect(shown(frame(Buffer.from(`${line}\n`), false).pieces)).to.deep.equal([`F ${line}`]);
    expect(frame(Buffer.from(line), false).pieces).to.deep.equal([]);
  });

  it('splits a longer line into partial pieces of exactly the limit', () => {
    const pieces = frame(Buffer.from(`${'x'.repeat(2 * lineBytesMax + 5)}\n`), false).pieces;
    expect(pieces.map((piece) => [piece.tag, piece.content.length])).to.deep.equal([
      ['P', lineBytesMax],
      ['P', lineBytesMax],
      ['F', 5],
    ]);
  });

  it('gives the same pieces however the bytes arrive', () => {
    fc.assert(
      fc.property(text, fc.array(fc.integer({ min: 1, max: 30_000 }), { maxLength: 20 }), (data, sizes) => {
        expect(inChunks(data, sizes)).to.deep.equal(shown(frame(data, true).pieces));
      }),
      { numRuns: 200 },
    );
  });

  it('can start again wherever a piece ended', () => {
    fc.assert(
      fc.property(text, fc.nat(), (data, pick) => {
        const all = frame(data, true);
        if (all.pieces.length === 0) return;
        const count = pick % all.pieces.length;
        // Where the piece before ended: the shortest prefix that gives so many pieces and leaves nothing over.
        let end = 0;
        for (let index = 0; index < count; index += 1) {
          const window = data.subarray(end, end + lineBytesMax + 1);
          const newline = window.indexOf(10);
          end += newline === -1 ? lineBytesMax : newline + 1;
        }
        expect(shown(frame(data.subarray(end), true).pieces)).to.deep.equal(shown(all.pieces.slice(count)));
      }),
      { numRuns: 200 },
    );
  });
});

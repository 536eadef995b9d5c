import { expect } from 'chai';
import fc from 'fast-check';

import { findJsonMistake } from '../../../../lib/wire/cni/json-place.js';

describe('the place of a mistake in JSON', () => {
  const places: [string, number | undefined][] = [
    ['{}', undefined],
    [' {"a": [1, -2.5e3, "x\\u00e4", null], "b": {}} ', undefined],
    ['', 0],
    ['{"a": }', 6],
    ['{"a": 1,}', 8],
    ['{"a" 1}', 5],
    ["{'a': 1}", 1],
    ['[1 2]', 3],
    ['[1, 2', 5],
    ['{"a": tru}', 6],
    ['{"a": "x\ny"}', 6],
    ['{} x', 3],
    ['[01]', 2],
  ];
  for (const [text, place] of places)
    it(`of ${JSON.stringify(text)} is ${String(place)}`, () => {
      expect(findJsonMistake(text)).to.equal(place);
    });

  it('is told for everything that is not JSON, and for nothing else', () => {
    const almost = fc
      .tuple(fc.json(), fc.nat(), fc.constantFrom('', '{', ']', ',', '"', ':', '0', '\\'))
      .map(([text, at, insert]) => {
        const place = at % (text.length + 1);
        return text.slice(0, place) + insert + text.slice(place);
      });
    fc.assert(
      fc.property(almost, (text) => {
        expect(findJsonMistake(text) === undefined).to.equal(isJson(text));
      }),
      { numRuns: 1000 },
    );
  });

  it('is not told when it lies too deep', () => {
    expect(findJsonMistake('['.repeat(1_000_000))).to.equal(undefined);
  });
});

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

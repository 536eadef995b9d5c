import { expect } from 'chai';
import fc from 'fast-check';

import type { Layer } from '../../../lib/image/group.js';
import { effectiveLayers, emptyLayerDiffId, groupNeighbours, planDevices } from '../../../lib/image/group.js';
import { sha256Digest } from '../../../lib/wire/oci/digest.js';
import { mediaTypes } from '../../../lib/wire/oci/media-types.js';

function layer(content: string, sizeBytes = 1): Layer {
  const descriptor = {
    mediaType: mediaTypes.ociLayer,
    digest: sha256Digest(content),
    sizeBytes,
    compression: 'none' as const,
  };
  return { descriptor, diffId: sha256Digest(content) };
}

/** Bytes written again: the sum of runs of two or more. */
function cost(sizes: readonly number[], lengths: readonly number[]): number {
  let at = 0;
  let total = 0;
  for (const length of lengths) {
    const run = sizes.slice(at, at + length);
    at += length;
    if (length > 1) total += run.reduce((sum, size) => sum + size, 0);
  }
  return total;
}

/** All ways to split `count` into at most `groups` runs. */
function* splits(count: number, groups: number): Generator<number[]> {
  if (count === 0) yield [];
  if (count === 0 || groups === 0) return;
  for (let first = 1; first <= count; first += 1)
    for (const rest of splits(count - first, groups - 1)) yield [first, ...rest];
}

describe('groupNeighbours', () => {
  const sizes = fc.array(fc.nat({ max: 1000 }), { maxLength: 60 });

  it('keeps every layer, in order, in at most so many runs; few layers stay alone', () => {
    fc.assert(
      fc.property(sizes, fc.integer({ min: 1, max: 8 }), (list, max) => {
        const lengths = groupNeighbours(list, max);
        expect(lengths.reduce((sum, length) => sum + length, 0)).to.equal(list.length);
        expect(lengths.every((length) => length >= 1)).to.equal(true);
        expect(lengths.length).to.be.at.most(max);
        if (list.length <= max) expect(lengths).to.deep.equal(list.map(() => 1));
      }),
    );
  });

  it('writes as few bytes again as any other split would', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat({ max: 50 }), { minLength: 1, maxLength: 9 }),
        fc.integer({ min: 1, max: 5 }),
        (list, max) => {
          const best = Math.min(...[...splits(list.length, max)].map((lengths) => cost(list, lengths)));
          expect(cost(list, groupNeighbours(list, max))).to.equal(best);
        },
      ),
    );
  });

  it('leaves the big layers alone and takes the small ones between them together', () => {
    expect(groupNeighbours([900, 1, 2, 3, 800, 1, 1, 700], 5)).to.deep.equal([1, 3, 1, 2, 1]);
  });

  it('is quick for as many layers as an image may have', () => {
    const many = Array.from({ length: 512 }, (_, index) => (index * 7919) % 1000);
    expect(groupNeighbours(many, 8).length).to.equal(8);
  });
});

describe('effectiveLayers', () => {
  const keys = fc.constantFrom('a', 'b', 'c', 'd');

  it('shows what the whole stack shows', () => {
    // A layer as a map from path to what it says there; the highest that says anything wins.
    const says = { a: { x: 1, y: 1 }, b: { x: 2 }, c: { y: 0, z: 3 }, d: { z: 0, x: 4 } };
    const view = (names: readonly string[]): Record<string, number> =>
      Object.assign({}, ...names.map((name) => says[name as keyof typeof says])) as Record<string, number>;
    const byDigest = new Map(Object.keys(says).map((name) => [sha256Digest(name), name]));
    fc.assert(
      fc.property(fc.array(keys, { minLength: 1, maxLength: 12 }), (names) => {
        const left = effectiveLayers(names.map((name) => layer(name))).map(
          (entry) => byDigest.get(entry.diffId) ?? '',
        );
        expect(view(left)).to.deep.equal(view(names));
        expect(new Set(left).size).to.equal(left.length);
      }),
    );
  });

  it('leaves out empty layers unless there is nothing else', () => {
    const empty = { ...layer('e'), diffId: emptyLayerDiffId };
    expect(sha256Digest(Buffer.alloc(1024))).to.equal(emptyLayerDiffId);
    expect(effectiveLayers([empty, layer('a'), empty])).to.deep.equal([layer('a')]);
    expect(effectiveLayers([empty, empty])).to.deep.equal([empty]);
  });
});

describe('planDevices', () => {
  it('names a single layer by its own digest and joined ones by all of theirs', () => {
    const layers = ['a', 'b', 'c'].map((name) => layer(name));
    const alone = planDevices(layers, 8);
    expect(alone.map((part) => part.device.key)).to.deep.equal(layers.map((entry) => entry.diffId.slice(7)));
    expect(alone.every((part) => part.device.subdirs.join() === '')).to.equal(true);
    const joined = planDevices(layers, 1);
    expect(joined.length).to.equal(1);
    expect(joined[0]?.device.subdirs).to.deep.equal(['0', '1', '2']);
    expect(joined[0]?.device.key).to.match(/^[0-9a-f]{64}$/);
    expect(planDevices(layers.toReversed(), 1)[0]?.device.key).to.not.equal(joined[0]?.device.key);
    expect(planDevices(layers, 1)).to.deep.equal(joined);
  });
});

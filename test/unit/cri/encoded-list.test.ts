import { expect } from 'chai';
import fc from 'fast-check';

import { v1 } from '../../../lib/cri/api.js';
import { ItemEncoder } from '../../../lib/cri/encoded-list.js';

interface Item {
  readonly id: string;
}

describe('ItemEncoder', () => {
  const encode = ({ id }: Item): Uint8Array => v1.PodSandbox.encode({ id }).finish();

  it('gives the bytes that the message itself would give', () => {
    const items = fc.array(fc.record({ id: fc.oneof(fc.string(), fc.constant('x'.repeat(20_000))) }));
    fc.assert(
      fc.property(items, (records) => {
        const whole = v1.ListPodSandboxResponse.encode({ items: [...records] }).finish();
        const { bytes } = new ItemEncoder(encode).response(records);
        expect(bytes.equals(whole)).to.equal(true);
      }),
    );
  });

  it('encodes a record once', () => {
    let encodings = 0;
    const encoder = new ItemEncoder<Item>((item) => {
      encodings += 1;
      return encode(item);
    });
    const records = [{ id: 'a' }, { id: 'b' }];
    const first = encoder.response(records);
    expect(encoder.response(records).bytes).to.deep.equal(first.bytes);
    expect(encodings).to.equal(2);
    encoder.response([{ id: 'a' }]);
    expect(encodings, 'a new record of the same content').to.equal(3);
  });

  it('gives the same bytes again while nothing changes, and new ones after any change', () => {
    const encoder = new ItemEncoder(encode);
    const [a, b, c] = [{ id: 'a' }, { id: 'b' }, { id: 'c' }];
    const growing = [a, b];
    const first = encoder.response(growing);
    expect(encoder.response([a, b]), 'another list of the same records').to.equal(first);
    // Each differs from the one before it in one way only.
    const lists = [[b, a], [b, c], [b], [b, b], []];
    for (const records of lists) {
      const whole = v1.ListPodSandboxResponse.encode({ items: records }).finish();
      expect(encoder.response(records).bytes.equals(whole), JSON.stringify(records)).to.equal(true);
    }
    encoder.response(growing);
    growing.push(c);
    expect(encoder.response(growing).bytes.equals(first.bytes), 'the caller’s own list grew').to.equal(false);
  });
}).timeout(120_000);

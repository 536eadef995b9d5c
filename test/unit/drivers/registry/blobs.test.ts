import { randomBytes } from 'node:crypto';

import { expect } from 'chai';

import { background, withCancel } from '../../../../lib/base/context.js';
import { sha256Digest } from '../../../../lib/wire/oci/digest.js';
import { parseReference } from '../../../../lib/wire/oci/reference.js';
import { FakeRegistry, answer, resetAfter, serveBytes, stallAfter } from '../../../fakes/registry-server.js';
import { Harness, failure } from './harness.js';

const ctx = background();
const bytes = randomBytes(1_000_000);
const blob = { mediaType: 'application/octet-stream', digest: sha256Digest(bytes), sizeBytes: bytes.length };

describe('RegistryClient: blobs', function () {
  // The HTTP client's timers tick about once a second, whatever the timeout asked for.
  this.timeout(20_000);

  let registry: FakeRegistry;
  let harness: Harness;
  let reference: string;

  beforeEach(async () => {
    registry = await FakeRegistry.start();
    registry.blobs.set(blob.digest, bytes);
    reference = `${registry.host}/team/app:v1`;
    harness = await Harness.open();
  });

  afterEach(async () => {
    await harness.close();
    await registry.stop();
  });

  it('delivers a blob whole, and an empty one without asking', async () => {
    expect((await harness.blob(ctx, reference, blob)).equals(bytes)).to.equal(true);
    const empty = { ...blob, digest: sha256Digest(''), sizeBytes: 0 };
    expect((await harness.blob(ctx, reference, empty)).length).to.equal(0);
    expect(registry.requests.length).to.equal(1);
  });

  it('goes on where a connection broke, with Range', async () => {
    let turn = 0;
    registry.intercept = (seen, response) => {
      turn += 1;
      if (turn > 4) return false;
      resetAfter(seen, response, bytes, 150_000);
      return true;
    };
    expect((await harness.blob(ctx, reference, blob)).equals(bytes)).to.equal(true);
    expect(registry.requests.map((seen) => seen.headers.range)).to.deep.equal([
      undefined,
      ...[1, 2, 3, 4].map((times) => `bytes=${String(times * 150_000)}-`),
    ]);
  });

  it('skips what it has when the registry does not know Range', async () => {
    let turn = 0;
    registry.intercept = (seen, response) => {
      turn += 1;
      if (turn <= 2) resetAfter({ ...seen, headers: {} }, response, bytes, 400_000);
      else serveBytes({ ...seen, headers: {} }, response, bytes);
      return true;
    };
    expect((await harness.blob(ctx, reference, blob)).equals(bytes)).to.equal(true);
    expect(turn).to.equal(3);
  });

  it('notices a stall and goes on', async () => {
    await harness.close();
    harness = await Harness.open({ stallTimeoutMs: 150 });
    let turn = 0;
    registry.intercept = (seen, response) => {
      turn += 1;
      if (turn > 2) return false;
      stallAfter(seen, response, bytes, turn === 1 ? 300_000 : 0);
      return true;
    };
    expect((await harness.blob(ctx, reference, blob)).equals(bytes)).to.equal(true);
    expect(registry.requests[2]?.headers.range).to.equal('bytes=300000-');
  });

  it('does not call it a stall when the reader is slow', async () => {
    await harness.close();
    harness = await Harness.open({ stallTimeoutMs: 100 });
    const source = harness.open();
    let total = 0;

    for await (const part of source.fetchBlob(ctx, parseReference(reference), blob)) {
      if (total === 0) await new Promise((resolve) => setTimeout(resolve, 400));
      total += part.length;
    }
    expect(total).to.equal(bytes.length);
    expect(registry.requests.length).to.equal(1);
  });

  it('gives up on a registry that always breaks, after a bounded number of tries', async () => {
    registry.intercept = (seen, response) => {
      resetAfter(seen, response, bytes, 0);
      return true;
    };
    const fruitless = await failure(harness.blob(ctx, reference, blob));
    expect(fruitless.message).to.match(/^RegistryUnavailable: .*reset|closed/);
    expect(registry.requests.length).to.equal(5);

    registry.intercept = (seen, response) => {
      resetAfter(seen, response, bytes, 10);
      return true;
    };
    registry.requests.length = 0;
    const slow = await failure(harness.blob(ctx, reference, blob));
    expect(slow.class).to.equal('Unavailable');
    expect(registry.requests.length).to.equal(51);
  });

  const lies: readonly (readonly [string, (size: number) => Buffer, boolean, RegExp])[] = [
    ['other bytes', (size) => Buffer.alloc(size, 1), true, /another digest/],
    [
      'too many bytes, announced',
      (size) => Buffer.alloc(size + 1, 1),
      true,
      /the registry has 1000001 bytes/,
    ],
    ['too few bytes, announced', (size) => Buffer.alloc(size - 1, 1), true, /the registry has 999999 bytes/],
    [
      'too many bytes, unannounced',
      (size) => Buffer.alloc(size + 70_000, 1),
      false,
      /more than the 1000000 bytes/,
    ],
  ];
  for (const [what, lie, announced, why] of lies) {
    it(`refuses ${what}`, async () => {
      registry.intercept = (_seen, response) => {
        const body = lie(bytes.length);
        response.writeHead(200, announced ? { 'content-length': body.length } : {});
        response.end(body);
        return true;
      };
      const error = await failure(harness.blob(ctx, reference, blob));
      expect(error.class).to.equal('DataLoss');
      expect(error.message).to.match(why);
    });
  }

  it('asks for what is missing when an unannounced end comes early, then gives up', async () => {
    registry.intercept = (_seen, response) => {
      response.writeHead(200);
      response.end(bytes.subarray(0, 999));
      return true;
    };
    const error = await failure(harness.blob(ctx, reference, blob));
    expect(error.message).to.match(/999001 bytes early/);
    expect(registry.requests.length).to.equal(6);
  });

  it('refuses a range that is not the one asked for', async () => {
    let turn = 0;
    registry.intercept = (seen, response) => {
      turn += 1;
      if (turn === 1) resetAfter(seen, response, bytes, 1000);
      else {
        response.writeHead(206, { 'content-range': `bytes 0-999999/1000000` });
        response.end(bytes);
      }
      return true;
    };
    expect((await failure(harness.blob(ctx, reference, blob))).message).to.contain('another range');
  });

  it('checks only the size when the caller checks the digest', async () => {
    registry.intercept = (_seen, response) => {
      response.end(Buffer.alloc(bytes.length, 1));
      return true;
    };
    const got = await harness.blob(ctx, reference, blob, harness.open(), { verify: false });
    expect(got.equals(Buffer.alloc(bytes.length, 1))).to.equal(true);
  });

  it('breaks the connection when the reader stops or the context ends', async () => {
    let closed = 0;
    registry.intercept = (seen, response) => {
      response.on('close', () => {
        closed += 1;
      });
      stallAfter(seen, response, bytes, 100_000);
      return true;
    };
    const cancelled = withCancel(ctx);
    const reading = harness.blob(cancelled, reference, blob);
    while (registry.requests.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    cancelled.cancel();
    expect((await failure(reading)).class).to.equal('Cancelled');

    const reader = harness.open().fetchBlob(ctx, parseReference(reference), blob)[Symbol.asyncIterator]();
    expect((await reader.next()).done).to.equal(false);
    await reader.return?.();
    while (closed < 2) await new Promise((resolve) => setTimeout(resolve, 5));
  });

  it('does not decode what it did not ask to be encoded', async () => {
    registry.intercept = (seen, response) => {
      expect(seen.headers['accept-encoding']).to.equal('identity');
      answer(response, 404, '');
      return true;
    };
    expect((await failure(harness.blob(ctx, reference, blob))).class).to.equal('NotFound');
  });
});

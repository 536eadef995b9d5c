import { createServer as createTcpServer } from 'node:net';
import type { AddressInfo } from 'node:net';

import { expect } from 'chai';

import { background, withCancel } from '../../../../lib/base/context.js';
import { manifestBytesMax } from '../../../../lib/wire/oci/manifest.js';
import { mediaTypes } from '../../../../lib/wire/oci/media-types.js';
import { parseReference } from '../../../../lib/wire/oci/reference.js';
import { FakeRegistry, answer } from '../../../fakes/registry-server.js';
import type { BuiltImage } from '../../../tools/image-builder.js';
import { buildImage, buildLayer } from '../../../tools/image-builder.js';
import { buildTar } from '../../../tools/tar-builder.js';
import { Harness, failure } from './harness.js';

const ctx = background();

describe('RegistryClient: manifests', function () {
  // The HTTP client's timers tick about once a second, whatever the timeout asked for.
  this.timeout(20_000);

  let registry: FakeRegistry;
  let harness: Harness;
  let image: BuiltImage;

  const fetch = (reference: string): ReturnType<ReturnType<Harness['open']>['fetchManifest']> =>
    harness.open().fetchManifest(ctx, parseReference(reference));

  beforeEach(async () => {
    registry = await FakeRegistry.start();
    harness = await Harness.open();
    image = buildImage([await buildLayer(ctx, buildTar([{ name: 'a', content: 'b' }]))]);
    registry.add('team/app', 'v1', image);
  });

  afterEach(async () => {
    await harness.close();
    await registry.stop();
  });

  it('fetches by tag and by digest from a plain registry on this machine', async () => {
    const { digest } = image.manifestDescriptor;
    for (const reference of [`${registry.host}/team/app:v1`, `${registry.host}/team/app@${digest}`]) {
      const { descriptor, bytes } = await fetch(reference);
      expect(descriptor).to.deep.equal({
        mediaType: mediaTypes.ociManifest,
        digest,
        sizeBytes: image.manifest.length,
      });
      expect(bytes.equals(image.manifest)).to.equal(true);
    }
    expect(registry.requests[0]?.headers['user-agent']).to.equal('herkos/1.2.3');
    expect(registry.requests[0]?.headers.accept).to.contain(mediaTypes.dockerList);
  });

  it('says NotFound with what and where', async () => {
    const error = await failure(fetch(`${registry.host}/team/app:v2`));
    expect(error.class).to.equal('NotFound');
    expect(error.message).to.equal(
      `${registry.host}/team/app:v2 at ${registry.host}: not found (MANIFEST_UNKNOWN: manifest unknown)`,
    );
    expect(registry.requests.length).to.equal(1);
  });

  it('refuses a manifest with another digest than the one asked for or promised', async () => {
    const { digest } = image.manifestDescriptor;
    registry.intercept = (_seen, response) => {
      response.writeHead(200, { 'docker-content-digest': digest, 'content-type': mediaTypes.ociManifest });
      response.end('{}');
      return true;
    };
    for (const reference of [`${registry.host}/team/app:v1`, `${registry.host}/team/app@${digest}`]) {
      const error = await failure(fetch(reference));
      expect(error.class).to.equal('DataLoss');
      expect(error.message).to.contain(`instead of ${digest}`);
    }
  });

  it('reads no more than 4 MiB of an endless manifest', async () => {
    let sent = 0;
    registry.intercept = (_seen, response) => {
      response.writeHead(200, { 'content-type': mediaTypes.ociManifest });
      const more = (): void => {
        if (response.destroyed) return;
        sent += 65536;
        response.write(Buffer.alloc(65536, 32), more);
      };
      more();
      return true;
    };
    const error = await failure(fetch(`${registry.host}/team/app:v1`));
    expect(error.message).to.contain(`longer than ${String(manifestBytesMax)} bytes`);
    expect(sent).to.be.lessThan(manifestBytesMax * 8);
  });

  it('tries again on 429 and 503, and on a reset', async () => {
    let turn = 0;
    registry.intercept = (_seen, response) => {
      turn += 1;
      if (turn === 1) answer(response, 429, '', { 'retry-after': '0' });
      else if (turn === 2) answer(response, 503, '');
      else if (turn === 3) response.socket?.resetAndDestroy();
      else return false;
      return true;
    };
    await fetch(`${registry.host}/team/app:v1`);
    expect(turn).to.equal(4);
  });

  it('gives up after a bounded number of tries, with the word the kubelet knows', async () => {
    registry.intercept = (_seen, response) => {
      answer(response, 500, '{"errors":[{"code":"UNKNOWN","message":"oh"}]}');
      return true;
    };
    const error = await failure(fetch(`${registry.host}/team/app:v1`));
    expect(error.class).to.equal('Unavailable');
    expect(error.message).to.match(/^RegistryUnavailable: .*HTTP status 500 \(UNKNOWN: oh\)$/);
    expect(registry.requests.length).to.equal(5);
  });

  it('does not wait as long as a registry likes', async () => {
    registry.intercept = (_seen, response) => {
      answer(response, 429, '', { 'retry-after': '86400' });
      return true;
    };
    const error = await failure(fetch(`${registry.host}/team/app:v1`));
    expect(error.message).to.contain('too many requests');
    expect(registry.requests.length).to.equal(1);
  });

  it('says that nobody listens', async () => {
    const { host } = registry;
    await registry.stop();
    const error = await failure(fetch(`${host}/team/app:v1`));
    expect(error.message).to.match(/^RegistryUnavailable: .*connection refused/);
    registry = await FakeRegistry.start();
  });

  it('gives up on a registry that accepts and never answers', async () => {
    await harness.close();
    harness = await Harness.open({
      stallTimeoutMs: 100,
      retry: {
        attemptsMax: 2,
        mirrorAttemptsMax: 1,
        delayFirstMs: 1,
        delayMaxMs: 1,
        retryAfterMaxMs: 1,
        resumesMax: 1,
      },
    });
    await harness.configure(registry.host, 'plain_http = true\n');
    registry.intercept = () => true;
    const error = await failure(fetch(`${registry.host}/team/app:v1`));
    expect(error.message).to.match(/^RegistryUnavailable: .*does not answer in time/);
    expect(registry.requests.length).to.equal(2);
  });

  it('stops at once when the caller does', async () => {
    const cancelled = withCancel(ctx);
    registry.intercept = () => {
      cancelled.cancel();
      return true;
    };
    const error = await failure(
      harness.open().fetchManifest(cancelled, parseReference(`${registry.host}/team/app:v1`)),
    );
    expect(error.class).to.equal('Cancelled');
  });

  it('follows a bounded number of redirects, and none to a less protected place', async () => {
    const locations: readonly (readonly [string, RegExp])[] = [
      ['/v2/again', /more than 5 redirects/],
      ['ftp://x/', /redirect to ftp:/],
      ['http://user:pw@127.0.0.1/', /with a password/],
      ['http://', /without a place/],
    ];
    for (const [location, why] of locations) {
      registry.intercept = (_seen, response) => {
        answer(response, 307, '', { location });
        return true;
      };
      expect((await failure(fetch(`${registry.host}/team/app:v1`))).message).to.match(why);
    }
  });

  it('does not take another protocol for a registry', async () => {
    const server = createTcpServer((socket) => {
      socket.on('error', () => undefined);
      socket.end('SSH-2.0-OpenSSH_9.9\r\n');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const error = await failure(fetch(`127.0.0.1:${String((server.address() as AddressInfo).port)}/a:b`));
    expect(error.message).to.match(/^RegistryUnavailable/);
    server.close();
  });
});

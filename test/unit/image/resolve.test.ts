import { expect } from 'chai';

import { background, sleep } from '../../../lib/base/context.js';
import type { ImageSource } from '../../../lib/image/ports.js';
import { resolveImage } from '../../../lib/image/resolve.js';
import { sha256Digest } from '../../../lib/wire/oci/digest.js';
import { parseReference } from '../../../lib/wire/oci/reference.js';
import { rejection } from '../../tools/rejection.js';

const mediaType = 'application/vnd.oci.image.manifest.v1+json';

/** Sends a byte of the config now and then, so that no transfer ever stalls. */
function trickling(onEnd: () => void): ImageSource {
  const config = {
    mediaType: 'application/vnd.oci.image.config.v1+json',
    digest: sha256Digest(Buffer.from('{}')),
  };
  const manifest = { schemaVersion: 2, mediaType, config: { ...config, size: 4_000_000 }, layers: [] };
  const bytes = Buffer.from(JSON.stringify(manifest));
  return {
    fetchManifest: async () =>
      Promise.resolve({
        descriptor: { mediaType, digest: sha256Digest(bytes), sizeBytes: bytes.length },
        bytes,
      }),
    async *fetchBlob(ctx) {
      try {
        for (;;) {
          yield Buffer.from(' ');
          await sleep(ctx, 5);
        }
      } finally {
        onEnd();
      }
    },
  };
}

describe('finding out what an image is', () => {
  it('does not wait for ever for a config that comes byte by byte', async () => {
    let ended: () => void = () => undefined;
    const end = new Promise<void>((resolve) => {
      ended = resolve;
    });
    const platform = { os: 'linux', architecture: 'amd64', variant: '' };
    const name = parseReference('example.org/app:1');
    const error = await rejection(resolveImage(background(), trickling(ended), name, platform, 50));
    expect(error).to.include({
      class: 'DeadlineExceeded',
      message: 'fetching the config of example.org/app:1 took longer than 50 ms',
    });
    await end;
  });
});

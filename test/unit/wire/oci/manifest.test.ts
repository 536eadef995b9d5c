import { expect } from 'chai';
import fc from 'fast-check';

import { HerkosError } from '../../../../lib/base/errors.js';
import { parseConfig } from '../../../../lib/wire/oci/config.js';
import { sha256Digest } from '../../../../lib/wire/oci/digest.js';
import { manifestBytesMax, parseManifest } from '../../../../lib/wire/oci/manifest.js';
import { mediaTypes } from '../../../../lib/wire/oci/media-types.js';
import { choosePlatform, requirePlatform } from '../../../../lib/wire/oci/platform.js';

const digest = sha256Digest('x');
const config = { mediaType: mediaTypes.ociConfig, digest, size: 10 };
const layer = { mediaType: mediaTypes.ociLayerGzip, digest, size: 20 };
const manifest = { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers: [layer] };
const index = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [] as unknown[] };

function parse(document: unknown, mediaType = ''): ReturnType<typeof parseManifest> {
  return parseManifest(Buffer.from(JSON.stringify(document)), mediaType, 'h/a:t');
}

describe('parseManifest', () => {
  it('reads OCI and Docker manifests and the compression of their layers', () => {
    const types: readonly (readonly [string, string])[] = [
      [mediaTypes.ociLayer, 'none'],
      [mediaTypes.ociLayerGzip, 'gzip'],
      [mediaTypes.ociLayerZstd, 'zstd'],
      [mediaTypes.dockerLayer, 'none'],
      [mediaTypes.dockerLayerGzip, 'gzip'],
    ];
    for (const [mediaType, compression] of types) {
      const read = parse({ ...manifest, layers: [{ ...layer, mediaType }] });
      expect(read.kind === 'manifest' && read.layers[0]?.compression).to.equal(compression);
    }
    const docker = {
      ...manifest,
      mediaType: mediaTypes.dockerManifest,
      config: { ...config, mediaType: mediaTypes.dockerConfig },
    };
    expect(parse(docker, mediaTypes.dockerManifest).kind).to.equal('manifest');
  });

  it('finds the kind from the header, the document or the shape', () => {
    const bare = { schemaVersion: 2, config, layers: [layer] };
    expect(parse(bare).kind).to.equal('manifest');
    expect(parse(bare, 'application/json').kind).to.equal('manifest');
    expect(parse({ schemaVersion: 2, manifests: [] }).kind).to.equal('index');
    expect(parse(index, mediaTypes.dockerList).kind).to.equal('index');
  });

  const refused: readonly (readonly [string, unknown, string, RegExp])[] = [
    ['schema 1', { schemaVersion: 1, fsLayers: [] }, '', /schema 1.*push the image again/],
    ['a manifest served as an index', manifest, mediaTypes.ociIndex, /served as an index/],
    ['a document that is both', { ...manifest, manifests: [] }, '', /both an index and a manifest/],
    [
      'an index by type with layers',
      { ...index, manifests: undefined, layers: [] },
      '',
      /served as an index but/,
    ],
    [
      'a chart',
      { ...manifest, config: { ...config, mediaType: 'application/vnd.cncf.helm.config.v1+json' } },
      '',
      /not a container image.*helm/,
    ],
    [
      'an artifact',
      {
        ...manifest,
        artifactType: 'text/x',
        config: { ...config, mediaType: 'application/vnd.oci.empty.v1+json' },
      },
      '',
      /not a container image.*text\/x/,
    ],
    [
      'an encrypted layer',
      { ...manifest, layers: [{ ...layer, mediaType: `${mediaTypes.ociLayerGzip}+encrypted` }] },
      '',
      /no tar file/,
    ],
    [
      'a negative size',
      { ...manifest, layers: [{ ...layer, size: -1 }] },
      '',
      /layers\[0\]\.size is not a size/,
    ],
    ['a fractional size', { ...manifest, layers: [{ ...layer, size: 1.5 }] }, '', /not a size/],
    ['an absurd size', { ...manifest, layers: [{ ...layer, size: 2 ** 52 }] }, '', /at most/],
    [
      'a digest that is a path',
      { ...manifest, layers: [{ ...layer, digest: 'sha256:../../x' }] },
      '',
      /not a sha256 digest/,
    ],
    ['a huge config', { ...manifest, config: { ...config, size: 2 ** 30 } }, '', /config of/],
    ['too many layers', { ...manifest, layers: Array.from({ length: 513 }, () => layer) }, '', /at most 512/],
    ['no config', { schemaVersion: 2, layers: [] }, '', /config\.mediaType is not a string/],
    ['a list', [], '', /not an object/],
    ['null', null, '', /not a size/],
    ['a string for layers', { ...manifest, layers: 'x' }, '', /not a list/],
    ['an unknown media type', { ...manifest, mediaType: 'text/html' }, '', /text\/html/],
  ];
  for (const [what, document, told, why] of refused) {
    it(`refuses ${what}`, () => {
      expect(() => parse(document, told)).to.throw(HerkosError, why);
    });
  }

  it('refuses what is no JSON, no UTF-8 or too long', () => {
    for (const bytes of [Buffer.from('{'), Buffer.from([0x22, 0xff, 0x22]), Buffer.alloc(0)])
      expect(() => parseManifest(bytes, '', 'x')).to.throw(HerkosError, /not JSON/);
    expect(() => parseManifest(Buffer.alloc(manifestBytesMax + 1, 32), '', 'x')).to.throw(
      HerkosError,
      /4 MiB/,
    );
  });

  it('answers any JSON with a document or a HerkosError', () => {
    const key = fc.constantFrom(
      'schemaVersion',
      'mediaType',
      'config',
      'layers',
      'manifests',
      'size',
      'digest',
      '__proto__',
    );
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom(2, digest, mediaTypes.ociLayer, null, -1),
        fc.array(tie('tree')),
        fc.dictionary(key, tie('tree')),
      ),
    }));
    fc.assert(
      fc.property(tree, (document) => {
        try {
          parse(document);
        } catch (error) {
          expect(error).to.be.instanceOf(HerkosError);
        }
      }),
      { numRuns: 1000 },
    );
  });
});

describe('choosePlatform', () => {
  const wanted = { os: 'linux', architecture: 'amd64', variant: '' };
  const entry = (platform: unknown, tag: string, extra: object = {}): unknown => ({
    mediaType: mediaTypes.ociManifest,
    digest: sha256Digest(tag),
    size: 1,
    ...(platform === undefined ? {} : { platform }),
    ...extra,
  });
  const choose = (...entries: unknown[]): string => {
    const read = parse({ ...index, manifests: entries });
    if (read.kind !== 'index') throw new Error('not an index');
    return choosePlatform(read, wanted, 'h/a:t').digest;
  };
  const amd64 = { os: 'linux', architecture: 'amd64' };

  it('takes the entry of this machine, the plainest variant first', () => {
    expect(choose(entry({ os: 'linux', architecture: 'arm64' }, 'arm'), entry(amd64, 'amd'))).to.equal(
      sha256Digest('amd'),
    );
    expect(choose(entry({ ...amd64, variant: 'v1' }, 'v1'), entry(amd64, 'plain'))).to.equal(
      sha256Digest('plain'),
    );
    expect(
      choose(entry({ ...amd64, variant: 'v3' }, 'v3'), entry({ ...amd64, variant: 'v1' }, 'v1')),
    ).to.equal(sha256Digest('v1'));
  });

  it('falls back to an entry that names no platform and skips attestations', () => {
    expect(
      choose(entry({ os: 'unknown', architecture: 'unknown' }, 'att'), entry(undefined, 'silent')),
    ).to.equal(sha256Digest('silent'));
    const attestation = { annotations: { 'vnd.docker.reference.type': 'attestation-manifest' } };
    expect(choose(entry(amd64, 'att', attestation), entry(amd64, 'real'))).to.equal(sha256Digest('real'));
  });

  it('says what there is when nothing fits', () => {
    expect(() =>
      choose(
        entry({ os: 'linux', architecture: 'arm64', variant: 'v8' }, 'a'),
        entry({ ...amd64, variant: 'v4' }, 'b'),
      ),
    ).to.throw(HerkosError, /no image for linux\/amd64; it has linux\/arm64\/v8, linux\/amd64\/v4/);
    expect(() => choose()).to.throw(HerkosError, /none at all/);
  });

  it('refuses a config of another platform', () => {
    requirePlatform({ os: 'linux', architecture: 'amd64', variant: 'v2' }, wanted, 'x');
    requirePlatform({ os: '', architecture: '', variant: '' }, wanted, 'x');
    expect(() => {
      requirePlatform({ os: 'windows', architecture: 'amd64', variant: '' }, wanted, 'x');
    }).to.throw(/x is for windows\/amd64/);
  });
});

describe('parseConfig', () => {
  const read = (document: unknown): ReturnType<typeof parseConfig> =>
    parseConfig(Buffer.from(JSON.stringify(document)), 'config');

  it('reads what a container needs', () => {
    const result = read({
      os: 'linux',
      architecture: 'amd64',
      rootfs: { type: 'layers', diff_ids: [digest] },
      config: {
        User: '10:20',
        Env: ['A=b'],
        Entrypoint: ['/x'],
        Cmd: null,
        WorkingDir: '/w',
        StopSignal: 'SIGINT',
        Labels: { __proto__x: 'y', a: 'b' },
        Volumes: { '/data': {} },
      },
    });
    expect(result).to.deep.include({
      user: '10:20',
      env: ['A=b'],
      entrypoint: ['/x'],
      cmd: [],
      workingDir: '/w',
    });
    expect(result).to.deep.include({
      stopSignal: 'SIGINT',
      labels: { __proto__x: 'y', a: 'b' },
      volumes: ['/data'],
      diffIds: [digest],
    });
  });

  it('takes a config that says nothing', () => {
    expect(read({ rootfs: { diff_ids: [] }, config: null })).to.deep.include({
      user: '',
      env: [],
      diffIds: [],
      labels: {},
    });
  });

  it('keeps a label called __proto__ a label', () => {
    const bytes = Buffer.from('{"rootfs":{},"config":{"Labels":{"__proto__":"x"}}}');
    expect(Object.entries(parseConfig(bytes, 'config').labels)).to.deep.equal([['__proto__', 'x']]);
  });

  it('refuses wrong types and digests', () => {
    expect(() => read({ rootfs: { type: 'other' } })).to.throw(HerkosError, /rootfs\.type/);
    expect(() => read({ rootfs: { diff_ids: ['sha256:zz'] } })).to.throw(HerkosError, /diff_ids/);
    expect(() => read({ config: { Env: [1] } })).to.throw(HerkosError, /Env\[0\] is not a string/);
    expect(() => read({ config: { Entrypoint: '/bin/sh' } })).to.throw(
      HerkosError,
      /Entrypoint is not a list/,
    );
  });
});

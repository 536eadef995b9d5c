/**
 * Manifests and indexes (OCI image-spec manifest.md, image-index.md; Docker image manifest v2, schema 2).
 * The bytes come from anybody: every list and number is bounded and every refusal says what was wrong.
 */
import { HerkosError } from '../../base/errors.js';
import { GIB, MIB } from '../../base/units.js';
import { isDigest } from './digest.js';
import { JsonValue } from './json-value.js';
import type { DocumentKind } from './media-types.js';
import { compressionOf, documentKindOf, isConfigType } from './media-types.js';
import type {
  Descriptor,
  ImageIndex,
  ImageManifest,
  IndexEntry,
  LayerDescriptor,
  Platform,
} from './types.js';

/** Registries refuse bigger manifests too (distribution-spec: at least 4 MiB must be accepted). */
export const manifestBytesMax = 4 * MIB;
/** Configs hold build histories and are bigger than manifests at times. */
export const configBytesMax = 8 * MIB;
/** One blob; far above any layer seen, far below what breaks arithmetic. */
export const blobBytesMax = 512 * GIB;
export const layersMax = 512;
const manifestsMax = 4096;
const annotationsMax = 4096;

/**
 * Reads a manifest or an index.
 * @param mediaType what the registry or the referring descriptor said it is; '' when nothing did.
 * @throws HerkosError `FailedPrecondition` when malformed, ambiguous or no image, `Unimplemented` for schema 1.
 */
export function parseManifest(
  bytes: Uint8Array,
  mediaType: string,
  what: string,
): ImageManifest | ImageIndex {
  if (bytes.length > manifestBytesMax)
    throw new HerkosError(
      'FailedPrecondition',
      `${what} is ${String(bytes.length)} bytes long; at most 4 MiB are read`,
    );
  const document = JsonValue.parse(bytes, what);
  const kind = kindOf(document, mediaType, what);
  switch (kind) {
    case 'index':
      return { kind, manifests: document.get('manifests').list(manifestsMax).map(readEntry) };
    case 'manifest':
      return readManifest(document, what);
    case 'schema1':
      throw new HerkosError(
        'Unimplemented',
        `${what} is in Docker's old manifest format (schema 1), which is not supported; push the image again with a current tool`,
        { reason: 'IMAGE_SCHEMA1' },
      );
  }
}

/** A document that could be read in two ways could show one image to a scanner and another to us: refused. */
function kindOf(document: JsonValue, told: string, what: string): DocumentKind {
  if (document.get('schemaVersion').count(100) === 1) return 'schema1';
  const outer = documentKindOf(told);
  const own = document.get('mediaType');
  const inner = own.absent ? undefined : documentKindOf(own.string());
  if (!own.absent && inner === undefined)
    throw notAnImage(what, `its media type is ${own.string().slice(0, 100)}`);
  if (outer !== undefined && inner !== undefined && outer !== inner)
    throw new HerkosError(
      'FailedPrecondition',
      `${what} was served as an ${outer} and says it is an ${inner}`,
    );
  const hasManifests = !document.get('manifests').absent;
  const hasLayers = !document.get('layers').absent || !document.get('config').absent;
  if (hasManifests && hasLayers)
    throw new HerkosError('FailedPrecondition', `${what} is both an index and a manifest`);
  const shape = hasManifests ? 'index' : 'manifest';
  const kind = inner ?? outer ?? shape;
  if (kind !== 'schema1' && kind !== shape && (hasManifests || hasLayers))
    throw new HerkosError('FailedPrecondition', `${what} was served as an ${kind} but is an ${shape}`);
  return kind;
}

function readManifest(document: JsonValue, what: string): ImageManifest {
  const config = readDescriptor(document.get('config'));
  const artifactType = document.get('artifactType');
  if (!isConfigType(config.mediaType))
    throw notAnImage(
      what,
      artifactType.absent
        ? `its config is ${config.mediaType}`
        : `its type is ${artifactType.string().slice(0, 100)}`,
    );
  if (config.sizeBytes > configBytesMax)
    throw new HerkosError(
      'FailedPrecondition',
      `${what} has a config of ${String(config.sizeBytes)} bytes; at most 8 MiB are read`,
    );
  return {
    kind: 'manifest',
    config,
    layers: document
      .get('layers')
      .list(layersMax)
      .map((value) => readLayer(value, what)),
    annotations: document.get('annotations').stringMap(annotationsMax),
  };
}

function readLayer(value: JsonValue, what: string): LayerDescriptor {
  const descriptor = readDescriptor(value);
  const compression = compressionOf(descriptor.mediaType);
  if (compression === undefined)
    throw notAnImage(
      what,
      `it has a layer of type ${descriptor.mediaType}, which is no tar file plain, gzip or zstd`,
    );
  return { ...descriptor, compression };
}

function readEntry(value: JsonValue): IndexEntry {
  const platform = value.get('platform');
  const annotations = value.get('annotations').stringMap(annotationsMax);
  return {
    ...readDescriptor(value),
    platform: platform.absent ? undefined : readPlatform(platform),
    artifact: !value.get('artifactType').absent || 'vnd.docker.reference.type' in annotations,
    annotations,
  };
}

/** `os`, `architecture` and `variant` of an index entry or a config. */
export function readPlatform(value: JsonValue): Platform {
  return {
    os: value.get('os').string(''),
    architecture: value.get('architecture').string(''),
    variant: value.get('variant').string(''),
  };
}

function readDescriptor(value: JsonValue): Descriptor {
  const mediaType = value.get('mediaType').string();
  if (mediaType.length > 255 || !/^[\x21-\x7e]*$/.test(mediaType))
    value.get('mediaType').fail('is not a media type');
  const digest = value.get('digest').string();
  if (!isDigest(digest)) value.get('digest').fail('is not a sha256 digest');
  return { mediaType, digest, sizeBytes: value.get('size').count(blobBytesMax) };
}

function notAnImage(what: string, why: string): HerkosError {
  return new HerkosError('FailedPrecondition', `${what} is not a container image: ${why}`, {
    reason: 'IMAGE_IS_ARTIFACT',
  });
}

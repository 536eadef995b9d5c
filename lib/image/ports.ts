/**
 * What the image room needs of the outside world. An image's way, in the words of this room:
 *
 *   pull     resolve the reference → manifest for this machine → config → layers, N at a time
 *   convert  one pass in a worker: transfer → digest → gunzip → tar → EROFS device file → digest of the tar
 *   join     more layers than an image may have devices: small neighbours become one file
 *   store    device files by key, image records by id, names to ids; all of it survives kill -9
 *   collect  a file nobody's record names is removed, at start and after RemoveImage
 */
import type { Context } from '../base/context.js';
import type { ErrorClass } from '../base/errors.js';
import type { ImageRecord } from '../model/image.js';
import type { RecordStore } from '../pod/ports.js';
import type { Descriptor, ImageName } from '../wire/oci/types.js';

export type { Descriptor, ImageName } from '../wire/oci/types.js';

export type ImageStore = RecordStore<ImageRecord>;

export interface RegistryCredentials {
  readonly username: string;
  readonly password: string;
  /** An OAuth2 refresh token. */
  readonly identityToken: string;
  /** A bearer token to send as it is. */
  readonly registryToken: string;
}

/** A source of manifests and blobs; implemented by `drivers/registry` for registries and by this room for archives. */
export interface ImageSource {
  /** Bytes of a manifest or index, verified against the digest when the name has one. */
  fetchManifest(
    ctx: Context,
    name: ImageName,
  ): Promise<{ readonly descriptor: Descriptor; readonly bytes: Buffer }>;
  /**
   * A blob's bytes as stored (compressed), whole and in order; resumes a broken transfer by itself.
   * The digest and size are verified by the driver: the iterable throws DataLoss at the end when they differ.
   * With `verify: false` the caller computes the digest itself (in a worker); the size is checked anyway.
   * Asked again for a blob that it delivered whole, a source with several places takes another one.
   */
  fetchBlob(
    ctx: Context,
    name: ImageName,
    blob: Descriptor,
    options?: { readonly verify?: boolean },
  ): AsyncIterable<Buffer>;
}

/** Opens a source with the credentials of one request, which are neither kept nor logged (S7). */
export interface RegistryClient {
  open(credentials: RegistryCredentials | undefined): ImageSource;
}

/** Hears of pulls, to count them; it never throws. */
export interface ImageObserver {
  pullDone(outcome: 'OK' | ErrorClass, ms: number): void;
}

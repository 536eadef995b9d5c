/**
 * From layer to device file: what the image room calls. One pass in a worker thread:
 * compressed bytes → digest → decompressor → digest of the tar → tar parser → EROFS writer → file.
 * Nothing of the archive ever becomes a path on the host.
 */
import type { Context } from '../../base/context.js';

export type LayerCompression = 'gzip' | 'zstd' | 'none';

/** Bounds of one conversion; each is refused with `ResourceExhausted` and a message that names it. */
export interface ConvertLimits {
  /** Bytes of the uncompressed tar. */
  readonly uncompressedBytesMax: number;
  /**
   * Uncompressed bytes allowed for each compressed byte, once `ratioGraceBytes` are out: deflate cannot
   * do better than 1032, real layers stay below 100.
   */
  readonly ratioMax: number;
  readonly ratioGraceBytes: number;
  /** Entries of the tar, implied parent directories included. */
  readonly entriesMax: number;
  /** Memory for names, link targets, extended attributes and sparse maps. */
  readonly metadataBytesMax: number;
  /** Size of the device file; every GiB of it costs the guest 16 MiB for page structs. */
  readonly deviceBytesMax: number;
  /** Bytes of the disk that are left to others; looked at while the file is written. 0 takes all. */
  readonly freeBytesMin: number;
}

export interface ConvertRequest {
  /** The layer as the registry stores it, in order; a throw of the source ends the conversion with that error. */
  readonly source: AsyncIterable<Uint8Array>;
  readonly compression: LayerCompression;
  /** `sha256:<64 hex>` of the uncompressed tar, from the image config; undefined when it is not known. */
  readonly expectedDiffId: string | undefined;
  /** Checked here (in the worker) when given: `sha256:<64 hex>` and size of the bytes of `source`. */
  readonly expectedDigest?: string;
  readonly expectedBytes?: number;
  /** The finished file appears here by an atomic rename, mode 0440; an existing file is replaced. */
  readonly destinationPath: string;
  /** `defaultConvertLimits` with these changed. */
  readonly limits?: Partial<ConvertLimits>;
  /** `/etc/passwd` as an entry name: `refuse` (default) is an error, `strip` takes it below the image's root. */
  readonly absoluteNames?: 'refuse' | 'strip';
}

export interface ConvertProgress {
  readonly compressedBytes: number;
  readonly uncompressedBytes: number;
  readonly entries: number;
}

export interface ConvertResult {
  /** `sha256:<64 hex>` of the uncompressed tar. */
  readonly diffId: string;
  /** `sha256:<64 hex>` of the bytes of `source`. */
  readonly digest: string;
  readonly compressedBytes: number;
  readonly uncompressedBytes: number;
  /** Size of the device file, a multiple of 2 MiB; it may take less on disk. */
  readonly deviceBytes: number;
  readonly entries: number;
}

export interface JoinRequest {
  /** Device files of one layer each, lowest first. */
  readonly files: readonly string[];
  readonly destinationPath: string;
  readonly limits?: Partial<ConvertLimits>;
}

export interface JoinResult {
  readonly deviceBytes: number;
  readonly entries: number;
  /** Directory of each input inside the new file, in the order of `files`: what ImageDevice.subdirs holds. */
  readonly subdirs: readonly string[];
}

/**
 * A small pool of worker threads. Conversions beyond the pool's size wait in order. On any failure,
 * or when `ctx` ends, the temporary file (`<destination>.<random>.tmp`) is removed before the promise rejects.
 *
 * Errors: `InvalidArgument` (the archive names something it may not), `DataLoss` (broken or truncated
 * archive, wrong digest or size), `ResourceExhausted` (a limit, or the disk is full), the reason of `ctx`.
 */
export interface LayerConverter {
  convert(
    ctx: Context,
    request: ConvertRequest,
    onProgress?: (progress: ConvertProgress) => void,
  ): Promise<ConvertResult>;
  join(ctx: Context, request: JoinRequest): Promise<JoinResult>;
  /** Lets running work finish, refuses new work, then stops the threads. */
  close(): Promise<void>;
}

/** One layer as an overlay lower directory. */
export interface LayerLocation {
  /** The device file. */
  readonly path: string;
  /** Directory of the layer inside it; '' when the file holds one layer. */
  readonly subdir: string;
}

/**
 * `readFileInLayers` (read-file.ts): content of a regular file as a container of these layers, lowest
 * first, would see it; undefined when there is none. Symbolic links are followed inside the image only.
 */
export type ReadFileInLayers = (
  ctx: Context,
  layers: readonly LayerLocation[],
  path: string,
  bytesMax: number,
) => Promise<Buffer | undefined>;

/** An image as the node holds it: its config's digest is its id, its layers are device files. */

/** The parts of an OCI image config that running a container needs (OCI image-spec, config.md). */
export interface ImageRunConfig {
  readonly user: string;
  readonly env: readonly string[];
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  readonly workingDir: string;
  readonly stopSignal: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly volumes: readonly string[];
}

export interface ImageRecord {
  readonly schemaVersion: 1;
  /** `sha256:<64 hex>` of the image config. */
  readonly id: string;
  /** Fully qualified, with tag; empty when the image was only pulled by digest. */
  readonly repoTags: readonly string[];
  /** `name@sha256:…`, of the manifest or index that was asked for. */
  readonly repoDigests: readonly string[];
  /** Compressed layers plus config, as the manifest says. */
  readonly sizeBytes: number;
  readonly run: ImageRunConfig;
  /** The digests of the uncompressed layers, lowest first (`rootfs.diff_ids`). */
  readonly diffIds: readonly string[];
  /** Keys of the device files, lowest first; a file may hold several layers. */
  readonly devices: readonly ImageDevice[];
  readonly pinned: boolean;
  readonly pulledAt: string;
  /** RemoveImage was called while containers held the image: nobody sees it, its files stay until they are gone. */
  readonly removed?: true;
}

/** Which layers one device file holds. */
export interface ImageDevice {
  /** Content address of the device file: hex digest, also its file name. */
  readonly key: string;
  /** Directories inside the file, one for each layer, lowest first; `['']` when the file is one layer. */
  readonly subdirs: readonly string[];
}

/** A device file that can be plugged into a VM; never opened for writing (S3). */
export interface LayerDevice {
  readonly key: string;
  readonly path: string;
  /** Whole file, a multiple of 2 MiB. */
  readonly sizeBytes: number;
  readonly subdirs: readonly string[];
}

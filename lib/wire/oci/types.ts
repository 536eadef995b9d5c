/** The nouns of the OCI image and distribution specifications, after checking. */

/** `host/path` with a tag or a digest, fully qualified. */
export interface ImageName {
  readonly host: string;
  readonly repository: string;
  readonly tag: string | undefined;
  readonly digest: string | undefined;
}

/** An OCI descriptor (image-spec, descriptor.md), checked. */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly sizeBytes: number;
}

export type LayerCompression = 'none' | 'gzip' | 'zstd';

export interface LayerDescriptor extends Descriptor {
  /** As the media type says. */
  readonly compression: LayerCompression;
}

/** What an image runs on, in Go's words as the specification wants them. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant: string;
}

export interface ImageManifest {
  readonly kind: 'manifest';
  readonly config: Descriptor;
  /** Lowest first. */
  readonly layers: readonly LayerDescriptor[];
  readonly annotations: Readonly<Record<string, string>>;
}

export interface IndexEntry extends Descriptor {
  /** Undefined when the index does not say. */
  readonly platform: Platform | undefined;
  /** Set for attestations, signatures and other things that are no images. */
  readonly artifact: boolean;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface ImageIndex {
  readonly kind: 'index';
  readonly manifests: readonly IndexEntry[];
}

/** The parts of an image config that Herkos uses (image-spec, config.md). */
export interface ImageConfig {
  readonly platform: Platform;
  /** Digests of the uncompressed layers, lowest first. */
  readonly diffIds: readonly string[];
  readonly user: string;
  readonly env: readonly string[];
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  readonly workingDir: string;
  readonly stopSignal: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly volumes: readonly string[];
}

import type { ImageName, ImageSource } from '../ports.js';

/** One image in an archive. */
export interface ArchiveImage {
  /** What to ask the archive's source for. */
  readonly lookup: ImageName;
  /** What to call it on this node; undefined when nothing names it. */
  readonly name: ImageName | undefined;
  /** Its manifest was put together here (Docker archives have none). */
  readonly synthetic: boolean;
}

export interface Archive {
  readonly source: ImageSource;
  /**
   * The images in it, each once for each of its names.
   * @param name what the caller wants a lone image to be called.
   * @throws HerkosError `InvalidArgument` when a name is needed or fits several images.
   */
  images(name: string | undefined): readonly ArchiveImage[];
  close(): Promise<void>;
}

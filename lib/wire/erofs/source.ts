/** Random access to the bytes of an image, with a small cache of pages. */
import { HerkosError } from '../../base/errors.js';

export interface ByteSource {
  /** Size of the image. */
  readonly bytes: number;
  /** Exactly these bytes. @throws HerkosError `DataLoss` when they reach beyond the end. */
  read(position: number, length: number): Promise<Buffer>;
}

/** Fills `buffer` from `position` and returns how many bytes there were. */
export type ReadAt = (buffer: Buffer, position: number) => Promise<number>;

const pageBytes = 64 * 1024;
const pagesMax = 64;

/** An image that is not what it claims to be. */
export function brokenImage(message: string): HerkosError {
  return new HerkosError('DataLoss', `broken EROFS image: ${message}`, { reason: 'IMAGE_BROKEN_DEVICE' });
}

export class CachedSource implements ByteSource {
  readonly bytes: number;
  readonly #readAt: ReadAt;
  readonly #offset: number;
  /** In order of use: the first key is the one that goes next. */
  readonly #pages = new Map<number, Promise<Buffer>>();

  /** `bytes` of an image that begins at `offset` of what `readAt` reads. */
  constructor(readAt: ReadAt, offset: number, bytes: number) {
    this.#readAt = readAt;
    this.#offset = offset;
    this.bytes = bytes;
  }

  async read(position: number, length: number): Promise<Buffer> {
    if (position < 0 || length < 0 || position + length > this.bytes)
      throw brokenImage('something points outside of it');
    const first = Math.floor(position / pageBytes);
    if (length > 0 && Math.floor((position + length - 1) / pageBytes) === first) {
      const page = await this.#page(first);
      return page.subarray(position - first * pageBytes, position - first * pageBytes + length);
    }
    if (length >= 2 * pageBytes) return this.#exact(position, length);
    const parts: Buffer[] = [];
    for (let at = position; at < position + length;) {
      const index = Math.floor(at / pageBytes);
      const page = await this.#page(index);
      const end = Math.min(position + length, (index + 1) * pageBytes);
      parts.push(page.subarray(at - index * pageBytes, end - index * pageBytes));
      at = end;
    }
    return Buffer.concat(parts);
  }

  async #page(index: number): Promise<Buffer> {
    const known = this.#pages.get(index);
    if (known !== undefined) {
      this.#pages.delete(index);
      this.#pages.set(index, known);
      return known;
    }
    const position = index * pageBytes;
    const page = this.#exact(position, Math.min(pageBytes, this.bytes - position));
    this.#pages.set(index, page);
    page.catch(() => this.#pages.delete(index));
    for (const oldest of this.#pages.keys()) {
      if (this.#pages.size <= pagesMax) break;
      this.#pages.delete(oldest);
    }
    return page;
  }

  async #exact(position: number, length: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafeSlow(length);
    let filled = 0;
    while (filled < length) {
      const got = await this.#readAt(buffer.subarray(filled), this.#offset + position + filled);
      if (got === 0) throw brokenImage('it is cut off');
      filled += got;
    }
    return buffer;
  }
}

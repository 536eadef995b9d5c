/** Looks at zstd frames (RFC 8878, 3.1) on their way into a decoder that gives each frame the memory it asks for. */
import { HerkosError } from '../../base/errors.js';
import { MIB, formatBytes } from '../../base/units.js';

/** Memory that a frame may ask for: the most that `zstd -d` itself takes unasked. */
export const windowBytesMax = 128 * MIB;

const frameMagic = 0xfd2fb528;
const skippableMagic = 0x184d2a50;
const dictionaryBytes = [0, 1, 2, 4] as const;
const contentSizeBytes = [0, 2, 4, 8] as const;
const blockTypes = { rle: 1 } as const;

type Part = 'magic' | 'skippable' | 'descriptor' | 'header' | 'block';

/** Follows the frames of a stream, in whatever pieces it comes, without decoding them. */
export class ZstdFrames {
  #part: Part = 'magic';
  readonly #head = Buffer.alloc(16);
  #filled = 0;
  #needed = 4;
  /** Bytes of content in front of the next part. */
  #skip = 0;
  #descriptor = 0;

  /** @throws HerkosError `ResourceExhausted` at a frame that wants too much. What is no frame is left to the decoder. */
  push(chunk: Buffer): void {
    for (let at = 0; at < chunk.length;) {
      if (this.#skip > 0) {
        const take = Math.min(this.#skip, chunk.length - at);
        this.#skip -= take;
        at += take;
        continue;
      }
      const take = Math.min(this.#needed - this.#filled, chunk.length - at);
      chunk.copy(this.#head, this.#filled, at, at + take);
      this.#filled += take;
      at += take;
      if (this.#filled === this.#needed) this.#read();
    }
  }

  #read(): void {
    switch (this.#part) {
      case 'magic':
        this.#readMagic(this.#head.readUInt32LE(0));
        break;
      case 'skippable':
        this.#expect('magic', 4, this.#head.readUInt32LE(0));
        break;
      case 'descriptor':
        this.#descriptor = this.#head[0] ?? 0;
        this.#readDescriptor();
        break;
      case 'header':
        this.#checkWindow();
        this.#expect('block', 3);
        break;
      case 'block':
        this.#readBlock(this.#head.readUIntLE(0, 3));
        break;
    }
  }

  #readMagic(magic: number): void {
    if (magic === frameMagic) this.#expect('descriptor', 1);
    else if ((magic & ~0xf) >>> 0 === skippableMagic) this.#expect('skippable', 4);
    // The decoder will say that this is no frame.
    else this.#expect('magic', 4, Number.POSITIVE_INFINITY);
  }

  #readDescriptor(): void {
    const windowBytes = this.#isSingle ? 0 : 1;
    this.#expect('header', windowBytes + this.#dictionaryBytes + this.#contentSizeBytes);
  }

  #readBlock(header: number): void {
    const content = (header >> 1) % 4 === blockTypes.rle ? 1 : header >> 3;
    const isLast = header % 2 === 1;
    const checksumBytes = (this.#descriptor & 4) === 0 ? 0 : 4;
    if (isLast) this.#expect('magic', 4, content + checksumBytes);
    else this.#expect('block', 3, content);
  }

  #checkWindow(): void {
    const bytes = this.#isSingle ? this.#contentSize() : windowOf(this.#head[0] ?? 0);
    if (bytes > windowBytesMax)
      throw new HerkosError(
        'ResourceExhausted',
        `the layer's zstd frames need ${formatBytes(bytes)} of memory; at most ${formatBytes(windowBytesMax)} are given`,
        { reason: 'LAYER_TOO_LARGE' },
      );
  }

  #contentSize(): number {
    const at = this.#dictionaryBytes;
    if (this.#contentSizeBytes === 8) return Number(this.#head.readBigUInt64LE(at));
    return this.#head.readUIntLE(at, this.#contentSizeBytes);
  }

  /** The whole content is one window. */
  get #isSingle(): boolean {
    return (this.#descriptor & 0x20) !== 0;
  }

  get #dictionaryBytes(): number {
    return dictionaryBytes[(this.#descriptor & 3) as 0 | 1 | 2 | 3];
  }

  get #contentSizeBytes(): number {
    const bytes = contentSizeBytes[(this.#descriptor >> 6) as 0 | 1 | 2 | 3];
    return bytes === 0 && this.#isSingle ? 1 : bytes;
  }

  #expect(part: Part, bytes: number, skip = 0): void {
    this.#part = part;
    this.#needed = bytes;
    this.#filled = 0;
    this.#skip = skip;
  }
}

function windowOf(byte: number): number {
  const base = 2 ** (10 + (byte >> 3));
  return base + (base / 8) * (byte % 8);
}

/** Answer of a list RPC as bytes, put together from items that were encoded before. */
export class EncodedResponse {
  constructor(readonly bytes: Buffer) {}
}

/** Protobuf's tag of field 1 with length-delimited content: the repeated items of every list response of CRI. */
const itemTag = 0x0a;

/**
 * Encodes each record once in its life. Records never change: a change makes a new one, and the bytes go
 * with the old one. So a list of thousands, asked for every second, costs a copy and not an encoding; and
 * not even that while nothing has changed. A megabyte of new buffer for each answer would be collected by
 * full garbage collections, which stop the whole daemon.
 */
export class ItemEncoder<T extends object> {
  readonly #encode: (record: T) => Uint8Array;
  readonly #known = new WeakMap<T, Buffer>();
  /** What was answered last, and for which records: the same question comes again and again. */
  #last: { readonly records: readonly T[]; readonly response: EncodedResponse } | undefined;

  /** @param encode gives the wire form of one item's message */
  constructor(encode: (record: T) => Uint8Array) {
    this.#encode = encode;
  }

  /** A response message whose field 1 repeats the items. */
  response(records: readonly T[]): EncodedResponse {
    if (this.#last !== undefined && areSame(this.#last.records, records)) return this.#last.response;
    const response = new EncodedResponse(Buffer.concat(records.map((record) => this.#item(record))));
    this.#last = { records: [...records], response };
    return response;
  }

  #item(record: T): Buffer {
    const known = this.#known.get(record);
    if (known !== undefined) return known;
    const body = this.#encode(record);
    const item = Buffer.concat([Buffer.from([itemTag, ...varint(body.length)]), body]);
    this.#known.set(record, item);
    return item;
  }
}

/** The very same records in the same order. */
function areSame<T>(a: readonly T[], b: readonly T[]): boolean {
  return a.length === b.length && a.every((record, index) => record === b[index]);
}

/** Seven bits a byte, lowest first; the top bit says that more follow. */
function varint(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest % 128) + 128);
  }
}

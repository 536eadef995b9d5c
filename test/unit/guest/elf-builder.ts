/** Small ELF files, made by the book. */

export interface BuiltSegment {
  readonly type: number;
  readonly data: Buffer;
  readonly address?: number;
}

export interface BuiltSection {
  readonly name: string;
  readonly type?: number;
  readonly data: Buffer;
  readonly align?: number;
}

function header(): Buffer {
  const bytes = Buffer.alloc(64);
  bytes.write('\x7fELF\x02\x01\x01', 'latin1');
  bytes.writeUInt16LE(1, 16);
  bytes.writeUInt16LE(62, 18);
  bytes.writeUInt16LE(64, 52);
  bytes.writeUInt16LE(56, 54);
  bytes.writeUInt16LE(64, 58);
  return bytes;
}

/** A file of segments, in order. */
export function elfFile(parts: readonly BuiltSegment[]): Buffer {
  const head = header();
  head.writeBigUInt64LE(64n, 32);
  head.writeUInt16LE(parts.length, 56);
  let offset = 64 + parts.length * 56;
  const headers = parts.map(({ type, data, address = 0 }) => {
    const bytes = Buffer.alloc(56);
    bytes.writeUInt32LE(type, 0);
    bytes.writeBigUInt64LE(BigInt(offset), 8);
    bytes.writeBigUInt64LE(BigInt(address), 16);
    bytes.writeBigUInt64LE(BigInt(data.length), 32);
    bytes.writeBigUInt64LE(BigInt(data.length), 40);
    offset += data.length;
    return bytes;
  });
  return Buffer.concat([head, ...headers, ...parts.map(({ data }) => data)]);
}

/** A relocatable file of sections, the first of them number 1; the table of names is added at the end. */
export function objectFile(parts: readonly BuiltSection[]): Buffer {
  const names = Buffer.from(`\0${[...parts.map(({ name }) => name), '.shstrtab'].join('\0')}\0`);
  const all = [...parts, { name: '.shstrtab', type: 3, data: names }];
  const head = header();
  const bodies: Buffer[] = [];
  let offset = 64;
  const headers = [Buffer.alloc(64)];
  for (const { name, type = 1, data, align = 1 } of all) {
    const start = Math.ceil(offset / align) * align;
    bodies.push(Buffer.alloc(start - offset), data);
    offset = start + data.length;
    const bytes = Buffer.alloc(64);
    bytes.writeUInt32LE(names.indexOf(`\0${name}\0`) + 1, 0);
    bytes.writeUInt32LE(type, 4);
    bytes.writeBigUInt64LE(BigInt(start), 24);
    bytes.writeBigUInt64LE(BigInt(data.length), 32);
    bytes.writeBigUInt64LE(BigInt(align), 48);
    headers.push(bytes);
  }
  head.writeBigUInt64LE(BigInt(offset), 40);
  head.writeUInt16LE(headers.length, 60);
  head.writeUInt16LE(headers.length - 1, 62);
  return Buffer.concat([head, ...bodies, ...headers]);
}

export function note(owner: string, type: number, data: Buffer): Buffer {
  const name = Buffer.from(`${owner}\0`);
  const head = Buffer.alloc(12);
  head.writeUInt32LE(name.length, 0);
  head.writeUInt32LE(data.length, 4);
  head.writeUInt32LE(type, 8);
  const padded = (bytes: Buffer): Buffer =>
    Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
  return Buffer.concat([head, padded(name), padded(data)]);
}

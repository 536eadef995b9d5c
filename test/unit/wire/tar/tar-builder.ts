/** Builds archives byte by byte, broken ones too. */

export interface HeaderFields {
  readonly name: string;
  readonly type?: string;
  readonly size?: number;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime?: number;
  readonly linkName?: string;
  readonly prefix?: string;
  readonly major?: number;
  readonly minor?: number;
  readonly magic?: 'ustar' | 'gnu' | 'v7';
  /** Changes the block before its checksum is made. */
  readonly patch?: (block: Buffer) => void;
}

export function header(fields: HeaderFields): Buffer {
  const block = Buffer.alloc(512);
  const octal = (value: number, at: number, length: number): void => {
    block.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at, 'latin1');
  };
  block.write(fields.name, 0, 100, 'latin1');
  octal(fields.mode ?? 0o644, 100, 8);
  octal(fields.uid ?? 0, 108, 8);
  octal(fields.gid ?? 0, 116, 8);
  octal(fields.size ?? 0, 124, 12);
  octal(fields.mtime ?? 0, 136, 12);
  block.write(fields.type ?? '0', 156, 'latin1');
  block.write(fields.linkName ?? '', 157, 100, 'latin1');
  const magic = fields.magic ?? 'ustar';
  if (magic === 'ustar') block.write('ustar\x0000', 257, 'latin1');
  if (magic === 'gnu') block.write('ustar  \0', 257, 'latin1');
  octal(fields.major ?? 0, 329, 8);
  octal(fields.minor ?? 0, 337, 8);
  if (fields.prefix !== undefined) block.write(fields.prefix, 345, 155, 'latin1');
  fields.patch?.(block);
  return sealed(block);
}

/** Sets the checksum of a header block. */
export function sealed(block: Buffer): Buffer {
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

export function padded(data: Buffer): Buffer {
  return Buffer.concat([data, Buffer.alloc((512 - (data.length % 512)) % 512)]);
}

/** An entry with its data; the size is the data's unless the fields say otherwise. */
export function entry(fields: HeaderFields, data: Buffer | string = ''): Buffer {
  const bytes = Buffer.from(data);
  return Buffer.concat([header({ size: bytes.length, ...fields }), padded(bytes)]);
}

export function paxRecord(key: string, value: Buffer | string): Buffer {
  const body = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from('\n')]);
  let length = body.length + 1;
  while (String(length).length + body.length !== length) length = String(length).length + body.length;
  return Buffer.concat([Buffer.from(String(length)), body]);
}

export function pax(records: readonly (readonly [string, Buffer | string])[], type = 'x'): Buffer {
  return entry({ name: 'pax', type }, Buffer.concat(records.map(([key, value]) => paxRecord(key, value))));
}

export const endMark = Buffer.alloc(1024);

export function archive(...parts: readonly Buffer[]): Buffer {
  return Buffer.concat([...parts, endMark]);
}

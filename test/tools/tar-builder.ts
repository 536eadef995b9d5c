/** Small tar archives for tests: ustar with PAX records where a name is too long. */

export interface TarEntry {
  readonly name: string;
  readonly type?: 'file' | 'directory' | 'symlink' | 'hardlink';
  readonly content?: string | Uint8Array;
  readonly target?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
}

const blockBytes = 512;
const typeFlags = { file: '0', hardlink: '1', symlink: '2', directory: '5' } as const;

/** A whole archive with its end mark. */
export function buildTar(entries: readonly TarEntry[]): Buffer {
  const parts: Buffer[] = [];
  for (const entry of entries) {
    const content = Buffer.from(entry.content ?? '');
    const records = paxRecords(entry);
    if (records !== '') {
      const body = Buffer.from(records);
      parts.push(header('PaxHeaders/x', 'x', body.length, entry, ''), padded(body));
    }
    const flag = typeFlags[entry.type ?? 'file'];
    parts.push(
      header(entry.name.slice(-99), flag, content.length, entry, (entry.target ?? '').slice(-99)),
      padded(content),
    );
  }
  parts.push(Buffer.alloc(2 * blockBytes));
  return Buffer.concat(parts);
}

function header(name: string, flag: string, size: number, entry: TarEntry, target: string): Buffer {
  const block = Buffer.alloc(blockBytes);
  const octal = (value: number, width: number): string => value.toString(8).padStart(width - 1, '0') + '\0';
  block.write(name, 0, 100);
  block.write(octal(entry.mode ?? (entry.type === 'directory' ? 0o755 : 0o644), 8), 100);
  block.write(octal(entry.uid ?? 0, 8), 108);
  block.write(octal(entry.gid ?? 0, 8), 116);
  block.write(octal(size, 12), 124);
  block.write(octal(1_700_000_000, 12), 136);
  block.write('        ', 148);
  block.write(flag, 156);
  block.write(target, 157, 100);
  block.write('ustar\0' + '00', 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(sum.toString(8).padStart(6, '0') + '\0 ', 148);
  return block;
}

function padded(content: Buffer): Buffer {
  const rest = content.length % blockBytes;
  return rest === 0 ? content : Buffer.concat([content, Buffer.alloc(blockBytes - rest)]);
}

function paxRecords(entry: TarEntry): string {
  const record = (key: string, value: string): string => {
    const rest = Buffer.byteLength(` ${key}=${value}\n`);
    let length = rest + String(rest).length;
    if (String(length).length > String(rest).length) length = rest + String(length).length;
    return `${String(length)} ${key}=${value}\n`;
  };
  let records = '';
  if (Buffer.byteLength(entry.name) > 99) records += record('path', entry.name);
  if (Buffer.byteLength(entry.target ?? '') > 99) records += record('linkpath', entry.target ?? '');
  return records;
}

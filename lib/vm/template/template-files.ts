/**
 * Templates on a file system of their own, in memory and of limited size:
 *
 *     <directory>/<id>/memory          the guest's memory; its group is the template's own
 *     <directory>/<id>/state           the state of its devices; read by the daemon alone
 *     <directory>/<id>/template.json   written last: without it the template is half made
 *
 * A clone maps the memory privately. QEMU 7.2 can only open it for writing all the same, so the file's
 * group keeps every process out that is not a clone of this very template.
 */
import { chmod, chown, mkdir, open, readFile, readdir, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';

import { z } from 'zod';

import { writeFileAtomic } from '../../base/atomic-file.js';
import type { Context } from '../../base/context.js';
import { HerkosError, isErrno, messageOf } from '../../base/errors.js';
import type { Exec } from '../../base/exec.js';
import { isMounted } from '../../base/mounts.js';
import { MIB } from '../../base/units.js';
import type { TemplateImage } from '../ports.js';

/** Beside the guest's memory: its state, and what tmpfs itself needs. */
const spareBytes = 8 * MIB;
const idPattern = /^[0-9a-f]{16}$/;

const identitySchema = z.strictObject({
  device: z.number(),
  inode: z.number(),
  bytes: z.number(),
  /** Nanoseconds since 1970, as decimal digits. */
  modified: z.string(),
  sha256: z.string(),
});

const templateSchema = z.strictObject({
  schemaVersion: z.literal(1),
  id: z.string().regex(idPattern),
  /** Digest of everything that clones must have in common with it, the domain included. */
  key: z.string(),
  domain: z.string(),
  shape: z.strictObject({ vcpus: z.number().int(), memoryMib: z.number().int() }),
  accelerator: z.enum(['kvm', 'tcg']),
  gid: z.number().int(),
  /** Milliseconds since 1970. */
  builtAt: z.number(),
  memory: identitySchema,
  state: identitySchema,
});

export type Template = Readonly<z.infer<typeof templateSchema>>;
type FileIdentity = z.infer<typeof identitySchema>;

export interface TemplateFilesOptions {
  readonly directory: string;
  readonly bytesMax: number;
  readonly exec: Exec;
}

export class TemplateFiles {
  readonly #options: TemplateFilesOptions;

  constructor(options: TemplateFilesOptions) {
    this.#options = options;
  }

  /** Mounts the file system if nobody has yet. Clones pass through it, and cannot list it. */
  async prepare(ctx: Context): Promise<void> {
    const { directory, bytesMax, exec } = this.#options;
    await mkdir(directory, { recursive: true, mode: 0o711 });
    if (await isMounted(directory)) return;
    const options = `size=${String(bytesMax)},mode=0711,nosuid,nodev,noexec`;
    await exec.run(ctx, 'mount', ['-t', 'tmpfs', '-o', options, 'herkos-templates', directory]);
  }

  /** @throws ResourceExhausted when the file system has no room for so much memory */
  async begin(id: string, gid: number, memoryBytes: number): Promise<TemplateImage> {
    const { bavail, bsize } = await statfs(this.#options.directory);
    if (bavail * bsize < memoryBytes + spareBytes)
      throw new HerkosError(
        'ResourceExhausted',
        `${this.#options.directory} has no room for another template of ${String(memoryBytes / MIB)} MiB; raise template_memory, or remove templates (herkosctl template rm)`,
      );
    const image = this.image({ id, gid });
    await mkdir(image.directory, { mode: 0o700 });
    await chown(image.directory, 0, gid);
    await chmod(image.directory, 0o710);
    const memory = await open(image.memoryPath, 'wx', 0o600);
    try {
      await memory.truncate(memoryBytes);
      await memory.chown(0, gid);
      await memory.chmod(0o660);
    } finally {
      await memory.close();
    }
    return image;
  }

  image({ id, gid }: Pick<Template, 'id' | 'gid'>): TemplateImage {
    const directory = join(this.#options.directory, id);
    return { directory, gid, memoryPath: join(directory, 'memory'), statePath: join(directory, 'state') };
  }

  /** The template's process has ended: fixes what the files are, and makes the template count. */
  async finish(ctx: Context, made: Omit<Template, 'schemaVersion' | 'memory' | 'state'>): Promise<Template> {
    const { directory, memoryPath, statePath } = this.image(made);
    const template: Template = {
      schemaVersion: 1,
      ...made,
      memory: { ...(await identityOf(memoryPath)), sha256: await this.#digest(ctx, memoryPath) },
      state: { ...(await identityOf(statePath)), sha256: await this.#digest(ctx, statePath) },
    };
    await writeFileAtomic(join(directory, 'template.json'), JSON.stringify(template));
    return template;
  }

  /** Cheap: are these the files that were built? @throws FailedPrecondition when not */
  async check(template: Template): Promise<void> {
    const { memoryPath, statePath } = this.image(template);
    for (const [path, built] of [
      [memoryPath, template.memory],
      [statePath, template.state],
    ] as const) {
      const now = await identityOf(path).catch((error: unknown) => {
        throw changed(path, messageOf(error));
      });
      for (const what of ['device', 'inode', 'bytes', 'modified'] as const)
        if (now[what] !== built[what])
          throw changed(path, `${what} is ${String(now[what])} and was ${String(built[what])}`);
    }
  }

  /** Reads everything again. @throws FailedPrecondition when a byte is not as it was built */
  async verify(ctx: Context, template: Template): Promise<void> {
    await this.check(template);
    const { memoryPath, statePath } = this.image(template);
    if ((await this.#digest(ctx, memoryPath)) !== template.memory.sha256)
      throw changed(memoryPath, 'its digest');
    if ((await this.#digest(ctx, statePath)) !== template.state.sha256)
      throw changed(statePath, 'its digest');
  }

  /** Finished templates; what is half made, of whatever kind, is removed. */
  async load(): Promise<Template[]> {
    const found: Template[] = [];
    for (const name of await entries(this.#options.directory)) {
      const template = await this.#read(name);
      if (template === undefined)
        await rm(join(this.#options.directory, name), { recursive: true, force: true });
      else found.push(template);
    }
    return found;
  }

  /** Clones that run keep the memory mapped. */
  async removeGone(id: string): Promise<void> {
    await rm(join(this.#options.directory, id), { recursive: true, force: true });
  }

  /** Unmounts; for tests and for uninstalling. */
  async unmount(ctx: Context): Promise<void> {
    const { directory, exec } = this.#options;
    while (await isMounted(directory)) await exec.run(ctx, 'umount', ['--lazy', directory]);
  }

  async #read(name: string): Promise<Template | undefined> {
    try {
      const text = await readFile(join(this.#options.directory, name, 'template.json'), 'utf8');
      const template = templateSchema.parse(JSON.parse(text));
      return template.id === name ? template : undefined;
    } catch {
      return undefined;
    }
  }

  /** By a program: hashing hundreds of megabytes would hold the event loop up (R5). */
  async #digest(ctx: Context, path: string): Promise<string> {
    const { stdout } = await this.#options.exec.run(ctx, 'nice', ['-n', '10', 'sha256sum', '--', path]);
    return stdout.toString('utf8').slice(0, 64);
  }
}

async function identityOf(path: string): Promise<Omit<FileIdentity, 'sha256'>> {
  const info = await stat(path, { bigint: true });
  return {
    device: Number(info.dev),
    inode: Number(info.ino),
    bytes: Number(info.size),
    modified: String(info.mtimeNs),
  };
}

function changed(path: string, what: string): HerkosError {
  return new HerkosError('FailedPrecondition', `${path} is not what was built: ${what}`, {
    reason: 'TEMPLATE_CHANGED',
  });
}

async function entries(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

/**
 * What a template is made of:
 *
 *     its memory                        held by a process of its own, sealed when it is made (TemplateMemories)
 *     <directory>/<id>/state           the state of its devices; read by the daemon alone
 *     <directory>/<id>/template.json   written last: without it the template is half made
 *
 * The directory is a file system in memory, so that everything of a template ends with the host's uptime.
 */
import { chmod, chown, mkdir, readFile, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { z } from 'zod';

import { writeFileAtomic } from '../../base/atomic-file.js';
import type { Context } from '../../base/context.js';
import { HerkosError, isErrno, messageOf } from '../../base/errors.js';
import type { Exec } from '../../base/exec.js';
import { KeyedLock } from '../../base/keyed-lock.js';
import { isMounted } from '../../base/mounts.js';
import { MIB } from '../../base/units.js';
import type { TemplateImage, TemplateMemories, UnsealedMemory } from '../ports.js';

/** The states of many templates; one is about a third of a MiB. */
const stateBytesMax = 256 * MIB;
const idPattern = /^[0-9a-f]{16}$/;

const identitySchema = z.strictObject({
  device: z.number(),
  inode: z.number(),
  bytes: z.number(),
  /** Nanoseconds since 1970, as decimal digits. */
  modified: z.string(),
  sha256: z.string(),
});

const memorySchema = z.strictObject({
  path: z.string(),
  inode: z.number().int(),
  bytes: z.number().int(),
  pid: z.number().int().positive(),
  startTicks: z.string(),
  sha256: z.string(),
});

const templateSchema = z.strictObject({
  schemaVersion: z.literal(2),
  id: z.string().regex(idPattern),
  /** Digest of everything that clones must have in common with it, the domain included. */
  key: z.string(),
  domain: z.string(),
  shape: z.strictObject({ vcpus: z.number().int(), memoryMib: z.number().int() }),
  accelerator: z.enum(['kvm', 'tcg']),
  gid: z.number().int(),
  /** Milliseconds since 1970. */
  builtAt: z.number(),
  memory: memorySchema,
  state: identitySchema,
});

export type Template = Readonly<z.infer<typeof templateSchema>>;
type FileIdentity = z.infer<typeof identitySchema>;

export interface TemplateFilesOptions {
  readonly directory: string;
  /** Of all templates' memory together. */
  readonly bytesMax: number;
  readonly memories: TemplateMemories;
  readonly exec: Exec;
}

/** A template whose guest has not been saved yet. */
export interface UnfinishedTemplate {
  readonly image: TemplateImage;
  readonly unsealed: UnsealedMemory;
}

export class TemplateFiles {
  readonly #options: TemplateFilesOptions;
  readonly #lock = new KeyedLock();

  constructor(options: TemplateFilesOptions) {
    this.#options = options;
  }

  /** Mounts the file system if nobody has yet. Templates pass through it, and cannot list it. */
  async prepare(ctx: Context): Promise<void> {
    const { directory, exec } = this.#options;
    await mkdir(directory, { recursive: true, mode: 0o711 });
    if (await isMounted(directory)) return;
    const options = `size=${String(stateBytesMax)},mode=0711,nosuid,nodev,noexec`;
    await exec.run(ctx, 'mount', ['-t', 'tmpfs', '-o', options, 'herkos-templates', directory]);
  }

  /** @throws ResourceExhausted when templates would use more memory than they may */
  async begin(ctx: Context, id: string, gid: number, memoryBytes: number): Promise<UnfinishedTemplate> {
    const unsealed = await this.#lock.run(ctx, 'begin', async () => {
      // Two at a time would each find the same room.
      await this.#checkRoom(memoryBytes);
      const directory = this.#directoryOf(id);
      await mkdir(directory, { mode: 0o700 });
      await chown(directory, 0, gid);
      await chmod(directory, 0o710);
      return this.#options.memories.make(ctx, id, memoryBytes, gid);
    });
    return { unsealed, image: this.image({ id, gid, memory: unsealed.memory }) };
  }

  image({ id, gid, memory }: Pick<Template, 'id' | 'gid'> & Pick<TemplateImage, 'memory'>): TemplateImage {
    const directory = this.#directoryOf(id);
    const { path, inode } = memory;
    return { directory, gid, memory: { path, inode }, statePath: join(directory, 'state') };
  }

  /** The template's process has ended: fixes what the template is, and makes it count. */
  async finish(
    ctx: Context,
    { image, unsealed }: UnfinishedTemplate,
    made: Omit<Template, 'schemaVersion' | 'memory' | 'state'>,
  ): Promise<Template> {
    await unsealed.seal(ctx);
    const template: Template = {
      schemaVersion: 2,
      ...made,
      memory: { ...unsealed.memory, sha256: await this.#digest(ctx, image.memory.path) },
      state: { ...(await identityOf(image.statePath)), sha256: await this.#digest(ctx, image.statePath) },
    };
    await writeFileAtomic(join(image.directory, 'template.json'), JSON.stringify(template));
    return template;
  }

  /** Cheap: is this what was built? @throws FailedPrecondition when not */
  async check(template: Template): Promise<void> {
    await this.#options.memories.check(template.memory);
    const { statePath } = this.image(template);
    const now = await identityOf(statePath).catch((error: unknown) => {
      throw changed(statePath, messageOf(error));
    });
    for (const what of ['device', 'inode', 'bytes', 'modified'] as const)
      if (now[what] !== template.state[what])
        throw changed(statePath, `${what} is ${String(now[what])} and was ${String(template.state[what])}`);
  }

  /** Reads everything again. @throws FailedPrecondition when a byte is not as it was built */
  async verify(ctx: Context, template: Template): Promise<void> {
    await this.check(template);
    const { memory, statePath } = this.image(template);
    if ((await this.#digest(ctx, memory.path)) !== template.memory.sha256)
      throw changed(memory.path, 'its digest');
    if ((await this.#digest(ctx, statePath)) !== template.state.sha256)
      throw changed(statePath, 'its digest');
  }

  /** Finished templates; what is half made, of whatever kind, is removed. */
  async load(ctx: Context): Promise<Template[]> {
    const { directory, memories } = this.#options;
    const found: Template[] = [];
    for (const name of await entries(directory)) {
      const template = await this.#read(name);
      if (template === undefined) await rm(join(directory, name), { recursive: true, force: true });
      else found.push(template);
    }
    for (const id of await memories.list())
      if (!found.some((template) => template.id === id)) await memories.removeGone(ctx, id);
    return found;
  }

  /** Clones that run keep the memory mapped. */
  async removeGone(ctx: Context, id: string): Promise<void> {
    await this.#options.memories.removeGone(ctx, id);
    await rm(this.#directoryOf(id), { recursive: true, force: true });
  }

  /** Unmounts; for tests and for uninstalling. */
  async unmount(ctx: Context): Promise<void> {
    const { directory, exec } = this.#options;
    while (await isMounted(directory)) await exec.run(ctx, 'umount', ['--lazy', directory]);
  }

  /** For another template with so much memory. */
  async hasRoom(memoryBytes: number): Promise<boolean> {
    const { memories, bytesMax } = this.#options;
    return (await memories.bytesHeld()) + memoryBytes <= bytesMax;
  }

  async #checkRoom(memoryBytes: number): Promise<void> {
    const { bytesMax } = this.#options;
    if (!(await this.hasRoom(memoryBytes)))
      throw new HerkosError(
        'ResourceExhausted',
        `another template of ${String(memoryBytes / MIB)} MiB does not fit in the ${String(bytesMax / MIB)} MiB that templates may have; raise template_memory, or remove templates (herkosctl template rm)`,
      );
  }

  #directoryOf(id: string): string {
    return join(this.#options.directory, id);
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

import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { z } from 'zod';

import { HerkosError, messageOf } from '../../base/errors.js';
import { pmemFileSize } from './layer-file.js';
import type { GuestFiles } from './settings.js';

const file = z.object({
  name: z.string().regex(/^[\w.-]+$/),
  bytes: z.number().int().positive(),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
});

/** What the driver needs of guest/out/manifest.json; the manifest says more, for people. */
const manifestSchema = z.object({
  schemaVersion: z.literal(1),
  commandLine: z.string().max(2048),
  files: z.object({ kernel: file, initramfs: file, root: file }),
});

/** Size of the root image as a device; 0 when there is none. */
export async function rootBytes(guest: GuestFiles): Promise<number> {
  return guest.root === undefined ? 0 : pmemFileSize(guest.root, 'the guest root image');
}

/**
 * The guest that guest/build left in `directory`.
 * @throws HerkosError `FailedPrecondition` when it is not there, not whole, or of another version
 */
export async function loadGuestFiles(directory: string): Promise<GuestFiles> {
  const path = join(directory, 'manifest.json');
  try {
    const manifest = manifestSchema.parse(JSON.parse(await readFile(path, 'utf8')));
    const { kernel, initramfs, root } = manifest.files;
    for (const { name, bytes } of [kernel, initramfs, root]) {
      const { size } = await stat(join(directory, name));
      if (size !== bytes)
        throw new Error(`${name} has ${String(size)} bytes, the manifest says ${String(bytes)}`);
    }
    await pmemFileSize(join(directory, root.name), 'the guest root image');
    const digest = createHash('sha256');
    digest.update([kernel.sha256, initramfs.sha256, root.sha256, manifest.commandLine].join('\n'));
    return {
      kernel: join(directory, kernel.name),
      initramfs: join(directory, initramfs.name),
      root: join(directory, root.name),
      commandLine: manifest.commandLine,
      digest: digest.digest('hex'),
    };
  } catch (error) {
    throw new HerkosError(
      'FailedPrecondition',
      `there is no usable guest image in ${directory} (${messageOf(error)}); run guest/build`,
      { cause: error, reason: 'GUEST_IMAGE_MISSING' },
    );
  }
}

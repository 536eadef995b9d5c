import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';

import { HerkosError } from '../../base/errors.js';
import { jailEnvironment } from './jail.js';

/**
 * The path of the hypervisor, as the jail finds it.
 * @param binary a name or an absolute path
 * @throws HerkosError `FailedPrecondition` when there is no such program
 */
export async function findProgram(binary: string): Promise<string> {
  const places = isAbsolute(binary)
    ? [binary]
    : jailEnvironment.PATH.split(':').map((directory) => join(directory, binary));
  for (const path of places) if (await isProgram(path)) return path;
  const where = isAbsolute(binary) ? '' : ` in ${jailEnvironment.PATH}`;
  throw new HerkosError(
    'FailedPrecondition',
    `there is no program ${binary}${where} that could run VMs; install QEMU, or set qemu in [vm]`,
    { reason: 'QEMU_MISSING' },
  );
}

async function isProgram(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

/**
 * Makes a device file of one tar archive, or of a directory packed by the caller, without the daemon:
 *
 *     node dist/lib/image/convert/tar-to-device.js IN.tar OUT
 *
 * `IN.tar` is uncompressed (`-` reads standard input); OUT is replaced atomically. The same archive
 * always gives the same bytes, so pack with `tar --sort=name --mtime=@0 --numeric-owner --owner=0
 * --group=0 -cf - -C DIR .` to make a reproducible image of a directory. Other programs call `tarToDevice`.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readSync, renameSync, unlinkSync } from 'node:fs';
import { argv, exit } from 'node:process';
import { fileURLToPath } from 'node:url';

import { temporarySuffix } from '../../base/atomic-file.js';
import { HerkosError, messageOf } from '../../base/errors.js';
import { DeviceFile } from './device-file.js';
import { LayerBuilder } from './layer-builder.js';
import type { BuiltLayer } from './layer-builder.js';
import { LimitGuard } from './limits.js';

const readBytes = 1024 * 1024;

/** Synchronous; removes what it began when it fails. @throws HerkosError as `LayerConverter` does. */
export function tarToDevice(tarPath: string, devicePath: string): BuiltLayer {
  const temporary = `${devicePath}.${randomBytes(6).toString('hex')}${temporarySuffix}`;
  const input = tarPath === '-' ? 0 : openSync(tarPath, 'r');
  const file = new DeviceFile(temporary);
  try {
    const guard = new LimitGuard({ ratioMax: Number.POSITIVE_INFINITY });
    const builder = new LayerBuilder(file, guard, 'refuse');
    const buffer = Buffer.allocUnsafeSlow(readBytes);
    for (let got = readSync(input, buffer); got > 0; got = readSync(input, buffer)) {
      guard.compressedBytes += got;
      builder.push(buffer.subarray(0, got));
    }
    const built = builder.finish(() => undefined);
    renameSync(temporary, devicePath);
    return built;
  } catch (error) {
    file.close();
    unlinkSync(temporary);
    throw error;
  } finally {
    if (input !== 0) closeSync(input);
  }
}

function main(): void {
  const [, , tarPath, devicePath] = argv;
  if (tarPath === undefined || devicePath === undefined)
    throw new HerkosError('InvalidArgument', 'usage: tar-to-device IN.tar OUT');
  const { diffId, deviceBytes } = tarToDevice(tarPath, devicePath);
  console.log(`${diffId} ${String(deviceBytes)}`);
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  try {
    main();
  } catch (error) {
    console.error(`tar-to-device: ${messageOf(error)}`);
    exit(1);
  }
}

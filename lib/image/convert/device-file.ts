/** The device file being written: head, image, tail; a temporary file until the caller renames it. */
import { closeSync, fchmodSync, fsyncSync, ftruncateSync, openSync, statfsSync, writeSync } from 'node:fs';

import { HerkosError, isErrno, messageOf } from '../../base/errors.js';
import { MIB, formatBytes } from '../../base/units.js';
import { deviceBytesFor, deviceHead, deviceHeadBytes } from '../../wire/erofs/pfn-info.js';

const finishedMode = 0o440;
/** How often free space is looked at. */
const spaceCheckBytes = 64 * MIB;

/** Synchronous, for worker threads and tools. */
export class DeviceFile {
  readonly #descriptor: number;
  readonly #path: string;
  readonly #freeBytesMin: number;
  #sinceCheck = spaceCheckBytes;
  #open = true;

  /** Creates `path`, which must not exist. @param freeBytesMin what is left to others on that disk. */
  constructor(path: string, freeBytesMin = 0) {
    this.#path = path;
    this.#freeBytesMin = freeBytesMin;
    this.#descriptor = openSync(path, 'wx', 0o600);
  }

  /** Writes at a position of the image. */
  readonly writeAt = (data: Uint8Array, position: number): void => {
    this.#write(data, deviceHeadBytes + position);
  };

  /** Writes the head, gives the file its size, makes it durable and closes it; returns its size. */
  finish(imageBytes: number, uuid: Uint8Array): number {
    const bytes = deviceBytesFor(imageBytes);
    this.#write(deviceHead(bytes, uuid), 0);
    this.#try(() => {
      ftruncateSync(this.#descriptor, bytes);
      fchmodSync(this.#descriptor, finishedMode);
      fsyncSync(this.#descriptor);
    });
    this.close();
    return bytes;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#descriptor);
  }

  #write(data: Uint8Array, position: number): void {
    this.#checkSpace(data.length);
    this.#try(() => {
      let at = 0;
      while (at < data.length) at += writeSync(this.#descriptor, data, at, data.length - at, position + at);
    });
  }

  /** What a layer unpacks to is not known before: a full disk would hit the records of running pods too. */
  #checkSpace(bytes: number): void {
    this.#sinceCheck += bytes;
    if (this.#freeBytesMin === 0 || this.#sinceCheck < spaceCheckBytes) return;
    this.#sinceCheck = 0;
    const { bavail, bsize } = statfsSync(this.#path);
    if (bavail * bsize < this.#freeBytesMin + spaceCheckBytes)
      throw new HerkosError(
        'ResourceExhausted',
        `the layer would leave less than ${formatBytes(this.#freeBytesMin)} of the disk free; make room on it`,
        { reason: 'IMAGE_STORE_FULL' },
      );
  }

  #try(body: () => void): void {
    try {
      body();
    } catch (error) {
      if (isErrno(error, 'ENOSPC') || isErrno(error, 'EDQUOT') || isErrno(error, 'EFBIG'))
        throw new HerkosError('ResourceExhausted', `no space for the layer: ${messageOf(error)}`, {
          cause: error,
          reason: 'IMAGE_STORE_FULL',
        });
      throw error;
    }
  }
}

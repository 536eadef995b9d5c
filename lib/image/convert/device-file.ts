/** The device file being written: head, image, tail; a temporary file until the caller renames it. */
import { closeSync, fchmodSync, fsyncSync, ftruncateSync, openSync, writeSync } from 'node:fs';

import { HerkosError, isErrno, messageOf } from '../../base/errors.js';
import { deviceBytesFor, deviceHead, deviceHeadBytes } from '../../wire/erofs/pfn-info.js';

const finishedMode = 0o440;

/** Synchronous, for worker threads and tools. */
export class DeviceFile {
  readonly #descriptor: number;
  #open = true;

  /** Creates `path`, which must not exist. */
  constructor(path: string) {
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
    this.#try(() => {
      let at = 0;
      while (at < data.length) at += writeSync(this.#descriptor, data, at, data.length - at, position + at);
    });
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

/** A socket at which no agent listens, but something that knows no manners. */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export class GarbageGuest {
  readonly socketPath = join(tmpdir(), `hkg-${randomBytes(6).toString('hex')}`);
  /** Connections so far. */
  connections = 0;
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;

  private constructor(behave: (socket: Socket) => void) {
    this.#server = createServer((socket) => {
      this.connections += 1;
      this.#sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => this.#sockets.delete(socket));
      // A paused socket does not notice that the other side has gone.
      socket.resume();
      behave(socket);
    });
  }

  static async listen(behave: (socket: Socket) => void): Promise<GarbageGuest> {
    const guest = new GarbageGuest(behave);
    await new Promise<void>((resolve) => guest.#server.listen(guest.socketPath, resolve));
    return guest;
  }

  /** Connections that the host has not closed. */
  get open(): number {
    return this.#sockets.size;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) =>
      this.#server.close(() => {
        resolve();
      }),
    );
    await rm(this.socketPath, { force: true });
  }
}

/** An HTTP/2 frame (RFC 9113, section 4.1). */
export function frame(
  type: number,
  flags: number,
  stream: number,
  payload: Buffer,
  claimedBytes = payload.length,
): Buffer {
  const header = Buffer.alloc(9);
  header.writeUIntBE(claimedBytes, 0, 3);
  header.writeUInt8(type, 3);
  header.writeUInt8(flags, 4);
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, payload]);
}

export const frameType = { data: 0, headers: 1, settings: 4, ping: 6 } as const;

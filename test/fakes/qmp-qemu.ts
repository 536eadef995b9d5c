/** The other end of a QMP connection, on a real socket. */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const greeting =
  '{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}}\r\n';

export interface QmpRequest {
  readonly id: string;
  readonly execute: string;
  readonly arguments: Readonly<Record<string, unknown>>;
}

/** A QEMU that says what a test wants it to say. */
export class StandInQemu {
  readonly path = join(tmpdir(), `hkq-${randomBytes(6).toString('hex')}`);
  readonly #server: Server;
  readonly #sockets: Socket[] = [];

  constructor(onRequest: (request: QmpRequest, socket: Socket) => void, hello = greeting) {
    this.#server = createServer((socket) => {
      this.#sockets.push(socket);
      socket.on('error', () => undefined);
      socket.write(hello);
      socket.on('data', (chunk) => {
        for (const line of chunk.toString('utf8').split('\n')) {
          if (line.trim() === '') continue;
          const request = JSON.parse(line) as QmpRequest;
          if (request.execute === 'qmp_capabilities') answer(socket, request.id, {});
          else onRequest(request, socket);
        }
      });
    });
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.listen(this.path, resolve);
    });
  }

  drop(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    this.drop();
    await new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
    await rm(this.path, { force: true });
  }
}

export function answer(socket: Socket, id: string, value: unknown): void {
  socket.write(`${JSON.stringify({ return: value, id })}\r\n`);
}

export function refuse(socket: Socket, id: string, why: string): void {
  socket.write(`${JSON.stringify({ error: { class: 'GenericError', desc: why }, id })}\r\n`);
}

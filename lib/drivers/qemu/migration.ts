/**
 * A guest's state as QEMU's migration stream, with the guest's memory left out: that stays in the
 * template's memory file (capability `x-ignore-shared`), so the stream is about a third of a megabyte.
 * It travels over unix sockets, because the jail forbids QEMU to start programs.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { chmod, chown, rm } from 'node:fs/promises';
import type { Server, Socket } from 'node:net';
import { createConnection, createServer } from 'node:net';
import { join } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import type { Context } from '../../base/context.js';
import { abortable, underDeadline } from '../../base/context.js';
import { HerkosError } from '../../base/errors.js';
import { MIB } from '../../base/units.js';
import type { TemplateImage } from '../../vm/ports.js';
import { isObject } from '../../wire/qmp/message.js';
import type { QmpEvent, QmpSession } from './qmp-session.js';

/** Some tens of milliseconds on a quiet machine. */
const migrationTimeoutMs = 20_000;
/** Without memory it has a few hundred KiB; more means that memory is in it, and something is wrong. */
const stateBytesMax = 16 * MIB;
const socketName = 'state.sock';

/** Stops the guest and writes its state to `image.statePath`. @throws HerkosError with QEMU's own words */
export async function saveState(ctx: Context, session: QmpSession, image: TemplateImage): Promise<void> {
  await underDeadline(ctx, migrationTimeoutMs, 'saving a template', async (step) => {
    await session.execute(step, 'stop');
    await prepare(step, session);
    const socketPath = join(image.directory, socketName);
    await rm(socketPath, { force: true });
    const server = createServer({ allowHalfOpen: true });
    try {
      await listening(server, socketPath);
      await chown(socketPath, 0, image.gid);
      await chmod(socketPath, 0o660);
      const outcome = migrationOutcome(session);
      const connected = connection(server);
      await session.execute(step, 'migrate', { uri: `unix:${socketPath}` });
      const written = connected.then((socket) =>
        pipeline(socket, limited(stateBytesMax), createWriteStream(image.statePath, { mode: 0o600 }), {
          signal: step.signal,
        }),
      );
      written.catch(() => undefined);
      await abortable(step, outcome);
      await abortable(step, written);
    } finally {
      server.close();
      await rm(socketPath, { force: true });
    }
  });
}

/** For a QEMU that was started with `-incoming defer`: the guest can run when it resolves. */
export async function loadState(
  ctx: Context,
  session: QmpSession,
  statePath: string,
  socketPath: string,
): Promise<void> {
  await underDeadline(ctx, migrationTimeoutMs, 'loading a template', async (step) => {
    await prepare(step, session);
    const outcome = migrationOutcome(session);
    await session.execute(step, 'migrate-incoming', { uri: `unix:${socketPath}` });
    const socket = createConnection(socketPath);
    // QEMU's verdict says more than a broken connection, which may come before it or after.
    socket.on('error', () => undefined);
    try {
      pipeline(createReadStream(statePath), socket, { signal: step.signal }).catch(() => undefined);
      await abortable(step, outcome);
    } finally {
      socket.destroy();
    }
  });
}

async function prepare(ctx: Context, session: QmpSession): Promise<void> {
  await Promise.all([
    session.execute(ctx, 'migrate-set-capabilities', {
      capabilities: [
        { capability: 'x-ignore-shared', state: true },
        { capability: 'events', state: true },
      ],
    }),
    // QEMU would tell the network where a guest with the card's address has moved to: it is nobody's.
    session.execute(ctx, 'migrate-set-parameters', { 'announce-rounds': 0 }),
  ]);
}

/** Listens from now on. Rejects when the migration fails, or QEMU ends first, as it does on a broken state. */
function migrationOutcome(session: QmpSession): Promise<void> {
  const outcome = new Promise<void>((resolve, reject) => {
    const stop = session.onEvent((event: QmpEvent) => {
      if (event.name !== 'MIGRATION') return;
      const status = isObject(event.data) ? event.data['status'] : undefined;
      if (status === 'completed') resolve();
      else if (status === 'failed' || status === 'cancelled')
        reject(new HerkosError('Internal', `QEMU says that the migration ${status}`));
      else return;
      stop();
    });
    void session.lost.then((why) => {
      reject(new HerkosError('Unavailable', `QEMU ended in the middle of a migration: ${why}`));
    });
  });
  outcome.catch(() => undefined);
  return outcome;
}

async function listening(server: Server, path: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
}

async function connection(server: Server): Promise<Socket> {
  return new Promise((resolve, reject) => {
    server.once('connection', resolve);
    server.once('error', reject);
  });
}

function limited(bytesMax: number): Transform {
  let bytes = 0;
  return new Transform({
    transform(chunk: Buffer, _encoding, done): void {
      bytes += chunk.length;
      if (bytes <= bytesMax) done(null, chunk);
      else
        done(
          new HerkosError('Internal', `QEMU sends more than ${String(bytesMax)} bytes as a template's state`),
        );
    },
  });
}

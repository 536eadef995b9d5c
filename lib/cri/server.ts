import { chmod, lstat, mkdir, unlink } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname } from 'node:path';

import { Server, ServerCredentials } from '@grpc/grpc-js';
import type { ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js';

import type { Context } from '../base/context.js';
import { abortable } from '../base/context.js';
import { HerkosError, isErrno, messageOf } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import { MIB } from '../base/units.js';

/** What clients accept (cri-client), and so what we accept too. */
export const messageBytesMax = 16 * MIB;
/** Owner and group may connect: whoever can talk to this socket is root on the node. */
const socketMode = 0o660;
const directoryMode = 0o750;
/** The kernel's `sun_path`, with its closing NUL. */
const socketPathBytesMax = 107;

export interface ServedService {
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
}

/**
 * A gRPC server on a unix socket. `close` lets calls that run come to their end, `destroy` cuts them off;
 * both may be called at any time and more than once.
 */
export class SocketServer {
  readonly #server: Server;
  readonly #log: Logger;
  readonly socketPath: string;
  #closed: Promise<void> | undefined;

  private constructor(socketPath: string, log: Logger) {
    this.socketPath = socketPath;
    this.#log = log;
    this.#server = new Server({
      'grpc.max_receive_message_length': messageBytesMax,
      'grpc.max_send_message_length': messageBytesMax,
    });
  }

  /**
   * Serves on `socketPath`, in a directory that is made when it is not there. What a dead server left at
   * that path is removed.
   * @throws FailedPrecondition when somebody answers there, or when the path holds something else
   */
  static async listen(
    ctx: Context,
    socketPath: string,
    services: readonly ServedService[],
    log: Logger,
  ): Promise<SocketServer> {
    if (Buffer.byteLength(socketPath) > socketPathBytesMax)
      throw new HerkosError(
        'InvalidArgument',
        `the socket path ${socketPath} is longer than ${String(socketPathBytesMax)} bytes`,
      );
    await mkdir(dirname(socketPath), { recursive: true, mode: directoryMode });
    await removeStaleSocket(ctx, socketPath);
    const server = new SocketServer(socketPath, log);
    for (const { definition, implementation } of services)
      server.#server.addService(definition, implementation);
    try {
      await server.#bind();
      await chmod(socketPath, socketMode);
    } catch (error) {
      server.destroy();
      throw new HerkosError('FailedPrecondition', `cannot serve on ${socketPath}: ${messageOf(error)}`, {
        cause: error,
      });
    }
    return server;
  }

  /** Takes no new calls and waits for those that run; after `drainMs` they are cut off. */
  async close(drainMs: number): Promise<void> {
    this.#closed ??= new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        this.#log.warn('requests did not end in time and are cut off', { drainMs });
        this.#server.forceShutdown();
        // A connection that never said a word is none that the library would cut off, or end the shutdown for.
        resolve();
      }, drainMs);
      this.#server.tryShutdown(() => {
        clearTimeout(timer);
        resolve();
      });
    });
    await this.#closed;
  }

  /** Cuts off every call at once. */
  destroy(): void {
    this.#closed ??= Promise.resolve();
    this.#server.forceShutdown();
  }

  async #bind(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.bindAsync(`unix:${this.socketPath}`, ServerCredentials.createInsecure(), (error) => {
        if (error === null) resolve();
        else reject(error);
      });
    });
  }
}

/** Removes a socket that nobody serves any more; refuses to touch anything else. */
async function removeStaleSocket(ctx: Context, path: string): Promise<void> {
  let kind;
  try {
    kind = await lstat(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return;
    throw error;
  }
  if (!kind.isSocket())
    throw new HerkosError('FailedPrecondition', `${path} is there and is not a socket; move it away first`);
  if (await abortable(ctx, answers(path)))
    throw new HerkosError(
      'FailedPrecondition',
      `another process serves on ${path}; stop it, or configure another socket`,
      { reason: 'SOCKET_IN_USE' },
    );
  await unlink(path);
}

/** Does a connection succeed? Only a refusal proves that there is no server; any other error is thrown. */
async function answers(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error) => {
      if (isErrno(error, 'ECONNREFUSED') || isErrno(error, 'ENOENT')) resolve(false);
      else reject(error);
    });
  });
}

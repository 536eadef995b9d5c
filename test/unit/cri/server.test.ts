import { once } from 'node:events';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { spawnSync } from 'node:child_process';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { admin } from '#gen/admin/v1/services.js';

import { background, withTimeout } from '../../../lib/base/context.js';
import { errorClasses } from '../../../lib/base/errors.js';
import { silentLogger } from '../../../lib/base/logger.js';
import { statusCodes, toServiceError } from '../../../lib/cri/grpc-error.js';
import { SocketServer } from '../../../lib/cri/server.js';
import { MemoryLogger } from '../../fakes/cni-logger.js';
import { untilDone } from '../../fakes/pods.js';
import { rejection } from '../../tools/rejection.js';
import { Harness, sandboxConfig } from './harness.js';

describe('an observer of requests', () => {
  it('hears of each by its names, however it ends, and of streams', async () => {
    const cri = await Harness.start();
    try {
      await cri.call(cri.rpc.version, {});
      await cri.failure(cri.rpc.podSandboxStatus, { podSandboxId: 'nobody' });
      await cri.failure(cri.rpc.removePodSandbox, { podSandboxId: '' });
      await cri.failure(cri.rpc.attach, {});
      const stream = cri.client.stream(background(), admin.pullImage, { image: 'example.org/app:1' });
      let images: readonly string[] = [];
      for await (const { imageIds } of stream) images = imageIds;
      expect(images).to.have.length(1);
      expect(cri.observer.told).to.deep.equal([
        'rpc RuntimeService Version OK',
        'rpc RuntimeService PodSandboxStatus NotFound',
        'rpc RuntimeService RemovePodSandbox InvalidArgument',
        'rpc RuntimeService Attach Unimplemented',
        'rpc Admin PullImage OK',
      ]);
    } finally {
      await cri.stop();
    }
  });
});

describe('SocketServer', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'herkos-socket-'));
  });
  afterEach(async () => {
    await rm(directory, { recursive: true });
  });

  const listen = async (path: string): Promise<SocketServer> =>
    SocketServer.listen(background(), path, [], silentLogger);
  const failure = async (path: string): Promise<unknown> =>
    listen(path).then(
      (server) => {
        server.destroy();
        throw new Error('should not serve');
      },
      (error: unknown) => error,
    );

  it('lets owner and group connect, and nobody else', async () => {
    const path = join(directory, 'cri.sock');
    const server = await listen(path);
    expect(statSync(path).mode & 0o777).to.equal(0o660);
    server.destroy();
  });

  it('takes the place of a server that died', async () => {
    const path = join(directory, 'cri.sock');
    const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', script]);
    expect(statSync(path).isSocket()).to.equal(true);
    const server = await listen(path);
    await server.close(1000);
    expect(existsSync(path)).to.equal(false);
  });

  it('never takes the place of a server that lives', async () => {
    const path = join(directory, 'cri.sock');
    const server = await listen(path);
    expect(await failure(path)).to.include({ class: 'FailedPrecondition', reason: 'SOCKET_IN_USE' });
    expect(statSync(path).isSocket()).to.equal(true);
    server.destroy();
  });

  it('never removes what is not a socket', async () => {
    const path = join(directory, 'precious');
    writeFileSync(path, 'data');
    expect(await failure(path)).to.have.property('class', 'FailedPrecondition');
    expect(statSync(path).isFile()).to.equal(true);
  });

  it('says when a path is too long for a socket', async () => {
    expect(await failure(join(directory, 'x'.repeat(120)))).to.have.property('class', 'InvalidArgument');
  });

  it('closes once, however often it is told', async () => {
    const server = await listen(join(directory, 'cri.sock'));
    await Promise.all([server.close(1000), server.close(1000)]);
    server.destroy();
    server.destroy();
    await server.close(1000);
  });

  it('closes beside a connection that never says a word', async () => {
    const path = join(directory, 'cri.sock');
    const server = await listen(path);
    const silent = connect(path);
    await once(silent, 'connect');
    try {
      await server.close(50);
    } finally {
      silent.destroy();
    }
    expect(existsSync(path)).to.equal(false);
  });

  it('is not asked at all when the context of the call has ended', async () => {
    const cri = await Harness.start();
    try {
      const over = withTimeout(background(), 60_000, 'this');
      over.cancel();
      const stream = cri.client.stream(over, admin.pullImage, { image: 'example.org/app:1' });
      expect(await rejection(cri.client.call(over, cri.rpc.version, {}))).to.have.property(
        'class',
        'Cancelled',
      );
      expect(await rejection(stream.next())).to.have.property('class', 'Cancelled');
      await cri.call(cri.rpc.version, {});
      expect(cri.observer.told).to.deep.equal(['rpc RuntimeService Version OK']);
    } finally {
      await cri.stop();
    }
  });

  it('lets a running call end before it closes', async () => {
    const cri = await Harness.start();
    let go: () => void = () => undefined;
    const running = new Promise<void>((resolve) => {
      cri.pods.beforeRun = async () => {
        resolve();
        await new Promise<void>((release) => {
          go = release;
        });
      };
    });
    const call = cri.call(cri.rpc.runPodSandbox, { config: sandboxConfig('pod') });
    await running;
    const closed = cri.server.close(60_000);
    go();
    expect((await call).podSandboxId).to.have.lengthOf(64);
    cri.client.close();
    await closed;
    await cri.stop();
  });

  it('cuts off a call that does not end, and tells its handler', async () => {
    const cri = await Harness.start();
    let running: () => void = () => undefined;
    const started = new Promise<void>((resolve) => {
      running = resolve;
    });
    const ended = new Promise<unknown>((resolve) => {
      cri.pods.beforeRun = async (ctx) => {
        running();
        await untilDone(ctx).catch(resolve);
      };
    });
    const call = cri.failure(cri.rpc.runPodSandbox, { config: sandboxConfig('pod') });
    await started;
    await cri.server.close(10);
    expect(await ended).to.have.property('class', 'Cancelled');
    expect((await call).class).to.be.oneOf(['Unavailable', 'Cancelled']);
    await cri.stop();
  });
}).timeout(120_000);

describe('conversion of errors', () => {
  it('gives every class the code that it is numbered after', () => {
    expect(statusCodes).to.deep.equal(errorClasses);
  });

  it('makes INTERNAL of what is not ours, with the cause in the log', () => {
    const log = new MemoryLogger();
    const error = new TypeError('x is undefined', { cause: new Error('the real one') });
    expect(toServiceError(error, 'Version', log)).to.include({ code: 13, details: 'x is undefined' });
    expect(log.lines[0]).to.have.property('level', 'error');
    expect(log.lines[0]?.fields).to.include({ rpc: 'Version', cause: 'the real one' });
    expect(log.lines[0]?.fields['stack']).to.contain('server.test');
    expect(toServiceError('just text', 'Version', log)).to.include({ code: 13, details: 'just text' });
  });

  it('cuts a message that no header could carry', () => {
    const { details } = toServiceError(new Error('ü'.repeat(100_000)), 'Version', new MemoryLogger());
    expect(encodeURI(details).length).to.be.within(8_000, 8_300);
  });
}).timeout(120_000);

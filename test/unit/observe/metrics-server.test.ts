import { once } from 'node:events';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { Agent, request } from 'node:http';
import { connect } from 'node:net';
import type { Socket } from 'node:net';

import { expect } from 'chai';

import { silentLogger } from '../../../lib/base/logger.js';
import { MetricsServer } from '../../../lib/observe/metrics-server.js';
import type { LogLine } from '../../fakes/cni-logger.js';
import { MemoryLogger } from '../../fakes/cni-logger.js';
import { eventually } from '../../tools/eventually.js';
import { rejection } from '../../tools/rejection.js';

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

describe('the metrics server', () => {
  let server: MetricsServer | undefined;
  let serving = true;
  let text: () => Promise<string> = () => Promise.resolve('herkos_x 1\n');
  const sockets: Socket[] = [];

  const listen = async (host = '127.0.0.1', port = 0, logger = silentLogger): Promise<MetricsServer> => {
    server = await MetricsServer.listen({
      host,
      port,
      contentType: 'text/x-metrics',
      text: () => text(),
      isServing: () => serving,
      logger,
    });
    return server;
  };
  const portOf = ({ address }: MetricsServer): number => Number(address.slice(address.lastIndexOf(':') + 1));
  const ask = async (path: string, method = 'GET', body = '', agent = new Agent()): Promise<Answer> => {
    if (server === undefined) throw new Error('no server');
    const sent = request({ host: '127.0.0.1', port: portOf(server), path, method, agent });
    sent.end(body);
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    let got = '';
    for await (const part of response.setEncoding('utf8')) got += String(part);
    return { status: response.statusCode ?? 0, headers: response.headers, body: got };
  };
  /** A connection of its own, to say anything on; resolves with the bytes that came until the end. */
  const say = async (...parts: string[]): Promise<string> => {
    const socket = open();
    for (const part of parts) socket.write(part);
    return all(socket);
  };
  const open = (): Socket => {
    if (server === undefined) throw new Error('no server');
    const socket = connect(portOf(server), '127.0.0.1');
    sockets.push(socket);
    return socket;
  };
  const all = async (socket: Socket): Promise<string> => {
    let got = '';
    socket.setEncoding('utf8').on('data', (part: string) => (got += part));
    socket.on('error', () => undefined);
    if (!socket.closed) await once(socket, 'close');
    return got;
  };

  beforeEach(() => {
    serving = true;
    text = () => Promise.resolve('herkos_x 1\n');
  });

  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.destroy();
    await server?.close();
    server = undefined;
  });

  it('answers GET on its two paths and nothing else', async () => {
    await listen();
    const metrics = await ask('/metrics');
    expect(metrics).to.include({ status: 200, body: 'herkos_x 1\n' });
    expect(metrics.headers).to.include({ 'content-type': 'text/x-metrics', 'cache-control': 'no-store' });
    expect(await ask('/metrics?name[]=x')).to.include({ status: 200 });
    expect(await ask('/healthz')).to.include({ status: 200, body: 'ok\n' });
    for (const method of ['POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'TRACE']) {
      const refused = await ask('/metrics', method);
      expect(refused.status, method).to.equal(405);
      expect(refused.headers.allow).to.equal('GET');
    }
    for (const path of ['/', '/metrics/', '/Metrics', '//metrics', '/metrics/../healthz', '/debug/pprof'])
      expect((await ask(path)).status, path).to.equal(404);
    expect((await ask('/nowhere', 'POST')).status).to.equal(404);
  });

  it('is not healthy while the daemon does not serve', async () => {
    await listen();
    serving = false;
    expect(await ask('/healthz')).to.include({ status: 503, body: 'not serving\n' });
    expect((await ask('/metrics')).status).to.equal(200);
  });

  it('says 500 when the metrics cannot be written, and what is wrong only in the log', async () => {
    const lines: LogLine[] = [];
    await listen('127.0.0.1', 0, new MemoryLogger(lines));
    text = () => Promise.reject(new Error('a secret of the daemon'));
    const answer = await ask('/metrics');
    expect(answer.status).to.equal(500);
    expect(answer.body).not.to.include('secret');
    expect(lines.some(({ fields }) => fields['error'] === 'a secret of the daemon')).to.equal(true);
  });

  it('answers garbage with an error, or not at all, and goes on', async () => {
    await listen();
    const garbage: readonly string[] = [
      '\u0016\u0003\u0001\u0002\u0000\u0001\u0000\u0001',
      'GET /metrics HTTP/1.1\r\nHost: a\r\nX: a\r\n b\u0000\r\n\r\n',
      'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
      `GET /${'x'.repeat(20_000)} HTTP/1.1\r\n\r\n`,
      `GET /metrics HTTP/1.1\r\nHost: a\r\nX: ${'y'.repeat(20_000)}\r\n\r\n`,
      'GET /metrics HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n',
      'CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n',
    ];
    for (const words of garbage) expect(await say(words), words.slice(0, 40)).not.to.include(' 200 ');
    expect((await ask('/healthz')).status).to.equal(200);
  });

  it('reads no body', async () => {
    await listen();
    const posted = await ask('/metrics', 'POST', 'x'.repeat(100_000));
    expect(posted.status).to.equal(405);
    expect(posted.headers.connection).to.equal('close');
    expect(
      await say('GET /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n', '0\r\n\r\n'),
    ).to.match(/^HTTP\/1\.1 200 [^]*connection: close/i);
  });

  it('ends a connection that asks again before it is answered, and works for one request of it', async () => {
    await listen();
    const one = 'GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n';
    let asked = 0;
    let finish: (body: string) => void = () => undefined;
    text = () => {
      asked += 1;
      return new Promise((resolve) => (finish = resolve));
    };
    expect(await say(one.repeat(500))).to.equal('');
    expect(asked).to.equal(1);
    const later = open();
    later.write(one);
    await eventually(() => asked === 2);
    later.write(one);
    expect(await all(later)).to.equal('');
    expect(asked).to.equal(2);
    finish('');
  });

  it('takes one request after the other on a connection', async () => {
    await listen();
    text = () => Promise.resolve('x'.repeat(8 * 1024 * 1024));
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const ports = new Set<number | undefined>();
    agent.on('free', (socket: Socket) => ports.add(socket.localPort));
    try {
      for (let count = 0; count < 5; count += 1)
        expect((await ask('/metrics', 'GET', '', agent)).body).to.have.length(8 * 1024 * 1024);
      await eventually(() => ports.size > 0);
      expect(ports).to.have.property('size', 1);
    } finally {
      agent.destroy();
    }
  });

  it('gives a slow client up, and serves others meanwhile', async function () {
    this.timeout(60_000);
    await listen();
    const slow = open();
    slow.write('GET /metr');
    const ended = all(slow);
    expect((await ask('/metrics')).status).to.equal(200);
    expect(await ended).to.match(/^HTTP\/1\.1 408 /);
  });

  it('takes only so many connections, and others again when some have gone', async () => {
    await listen();
    const held = Array.from({ length: 32 }, open);
    await Promise.all(held.map((socket) => once(socket, 'connect')));
    // Accepted, each of them: an answer proves it.
    for (const socket of held) {
      socket.write('GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n');
      await once(socket, 'data');
    }
    expect(await say('GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n')).to.equal('');
    for (const socket of held) socket.destroy();
    await eventually(async () => (await ask('/healthz').catch(() => undefined))?.status === 200);
  });

  it('says what to do when the address is taken', async () => {
    const port = portOf(await listen());
    const error = await rejection(
      MetricsServer.listen({
        host: '127.0.0.1',
        port,
        contentType: '',
        text: () => text(),
        isServing: () => true,
        logger: silentLogger,
      }),
    );
    expect(error).to.include({ class: 'FailedPrecondition' });
    expect(String(error))
      .to.include(`127.0.0.1:${String(port)}`)
      .and.to.include('metrics.address');
    const elsewhere = await rejection(listen('192.0.2.1'));
    expect(elsewhere).to.include({ class: 'FailedPrecondition' });
  });

  it('warns when others than this machine can connect', async () => {
    for (const [host, warns] of [
      ['127.0.0.1', 0],
      ['127.9.9.9', 0],
      ['0.0.0.0', 1],
    ] as const) {
      const lines: LogLine[] = [];
      await (await listen(host, 0, new MemoryLogger(lines))).close();
      expect(lines.filter(({ level }) => level === 'warn')).to.have.length(warns);
    }
  });

  it('lets go of everybody when it is closed, and can be closed twice', async () => {
    const closing = await listen();
    const port = portOf(closing);
    const idle = open();
    await once(idle, 'connect');
    const agent = new Agent({ keepAlive: true });
    await ask('/healthz', 'GET', '', agent);
    let finish: (body: string) => void = () => undefined;
    let asked: () => void = () => undefined;
    const isAsked = new Promise<void>((resolve) => {
      asked = resolve;
    });
    text = () =>
      new Promise((resolve) => {
        finish = resolve;
        asked();
      });
    const late = ask('/metrics');
    await isAsked;
    const closed = Promise.all([closing.close(), closing.close()]);
    finish('herkos_late 1\n');
    expect(await late).to.include({ status: 200, body: 'herkos_late 1\n' });
    await closed;
    await all(idle);
    const [refused] = (await once(connect(port, '127.0.0.1'), 'error')) as [Error];
    expect(refused).to.include({ code: 'ECONNREFUSED' });
    agent.destroy();
  });
});

import { expect } from 'chai';
import fc from 'fast-check';

import { parseChallenges } from '../../../../lib/drivers/registry/challenge.js';
import { endpointsOf } from '../../../../lib/drivers/registry/endpoints.js';
import { errorTextOf, parseRetryAfter } from '../../../../lib/drivers/registry/failure.js';
import { defaultTls } from '../../../../lib/drivers/registry/hosts-file.js';
import { isLinkLocal, isLoopback, proxyFor } from '../../../../lib/drivers/registry/proxy.js';
import { backoffMs } from '../../../../lib/drivers/registry/session.js';
import { defaultRetry, proxyFromEnvironment } from '../../../../lib/drivers/registry/settings.js';

describe('parseChallenges', () => {
  const read = (...lines: string[]): [string, Record<string, string>][] =>
    parseChallenges(lines).map((challenge) => [challenge.scheme, Object.fromEntries(challenge.parameters)]);

  it('reads a bearer challenge', () => {
    expect(
      read('Bearer realm="https://a.example/token",service="r, s",scope="repository:x/y:pull"'),
    ).to.deep.equal([
      ['bearer', { realm: 'https://a.example/token', service: 'r, s', scope: 'repository:x/y:pull' }],
    ]);
  });

  it('reads several challenges in one line or in several', () => {
    const expected = [
      ['bearer', { realm: 'x' }],
      ['basic', { realm: 'y', charset: 'UTF-8' }],
    ];
    expect(read('Bearer realm=x, Basic realm="y", charset="UTF-8"')).to.deep.equal(expected);
    expect(read('Bearer realm="x"', 'BASIC Realm = "y" , charset=UTF-8')).to.deep.equal(expected);
    expect(read('Negotiate YWJj==, Basic realm="y"')).to.deep.equal([
      ['negotiate', {}],
      ['basic', { realm: 'y' }],
    ]);
    expect(read('Negotiate, Basic realm="a\\"b"')).to.deep.equal([
      ['negotiate', {}],
      ['basic', { realm: 'a"b' }],
    ]);
  });

  it('survives anything', () => {
    expect(read('')).to.deep.equal([]);
    expect(read('"')).to.deep.equal([]);
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom(...Array.from('ab =",\\\t/')), maxLength: 200 }),
        (line) => {
          expect(parseChallenges([line]).length).to.be.lessThan(17);
        },
      ),
      { numRuns: 2000 },
    );
  });
});

describe('proxyFor', () => {
  const proxied = (url: string, noProxy: string): boolean =>
    proxyFor(new URL(url), { httpProxy: 'http://plain:1', httpsProxy: 'http://tls:2', noProxy }) !==
    undefined;

  it('takes the proxy of the scheme, never for loopback', () => {
    const settings = proxyFromEnvironment({
      HTTP_PROXY: 'http://plain:1',
      https_proxy: 'http://tls:2',
      HTTPS_PROXY: 'x',
    });
    expect(proxyFor(new URL('http://a.example/'), settings)).to.equal('http://plain:1');
    expect(proxyFor(new URL('https://a.example/'), settings)).to.equal('http://tls:2');
    for (const url of ['http://localhost:5000/', 'https://127.8.9.1/', 'http://[::1]/'])
      expect(proxyFor(new URL(url), settings), url).to.equal(undefined);
    expect(proxyFor(new URL('https://a.example'), proxyFromEnvironment({}))).to.equal(undefined);
  });

  it('keeps away from what NO_PROXY names', () => {
    const exempt: readonly (readonly [string, string])[] = [
      ['https://a.example/', '*'],
      ['https://a.example/', 'x, a.example'],
      ['https://r.svc.cluster/', '.cluster'],
      ['https://r.svc.cluster/', 'cluster'],
      ['https://r.svc.cluster/', '*.cluster'],
      ['https://a.example/', 'A.Example:443'],
      ['https://10.1.2.3/', '10.0.0.0/8'],
      ['https://10.1.2.3:5000/', '10.1.2.3'],
      ['https://[fd00::7]/', 'fd00::/8'],
      ['https://[fd00::7]:5000/', '[fd00::7]:5000'],
    ];
    for (const [url, noProxy] of exempt) expect(proxied(url, noProxy), `${url} ${noProxy}`).to.equal(false);
    const others: readonly (readonly [string, string])[] = [
      ['https://a.example/', ''],
      ['https://ba.example/', 'a.example'],
      ['https://a.example/', 'a.example:444'],
      ['https://11.1.2.3/', '10.0.0.0/8'],
      ['https://10.1.2.3/', '10.0.0.0/99,/8,x/8'],
      ['https://10.1.2.3/', '2.3'],
    ];
    for (const [url, noProxy] of others) expect(proxied(url, noProxy), `${url} ${noProxy}`).to.equal(true);
  });

  it('knows addresses that stay here', () => {
    for (const host of ['localhost', 'x.localhost', '127.0.0.1', '[::1]', '::ffff:127.0.0.1'])
      expect(isLoopback(host), host).to.equal(true);
    for (const host of ['localhost.example', '128.0.0.1', '[::2]', 'x'])
      expect(isLoopback(host), host).to.equal(false);
    expect(isLinkLocal('169.254.169.254')).to.equal(true);
    expect(isLinkLocal('[fe80::1]')).to.equal(true);
    expect(isLinkLocal('10.0.0.1')).to.equal(false);
  });
});

describe('endpointsOf', () => {
  const both = new Set(['pull', 'resolve'] as const);

  it('has defaults', () => {
    const base = (host: string): string | undefined => endpointsOf(host, undefined)[0]?.base;
    expect(base('docker.io')).to.equal('https://registry-1.docker.io/v2/');
    expect(base('r.example:5000')).to.equal('https://r.example:5000/v2/');
    expect(base('[::1]:5000')).to.equal('https://[::1]:5000/v2/');
    expect(endpointsOf('localhost:5000', undefined)[0]?.plainFallback).to.equal(true);
    expect(endpointsOf('r.example', undefined)[0]?.plainFallback).to.equal(false);
  });

  it('asks mirrors first, without the credentials of the registry', () => {
    const mirror = (url: string, overridePath: boolean): object => ({
      url: new URL(url),
      capabilities: both,
      overridePath,
      tls: defaultTls,
    });
    const settings = {
      server: undefined,
      plainHttp: true,
      tls: defaultTls,
      mirrors: [
        mirror('https://m.example/hub', false),
        mirror('https://m.example/v2/hub/', true),
        mirror('http://r.example/', false),
      ],
    } as Parameters<typeof endpointsOf>[1];
    const list = endpointsOf('r.example', settings);
    expect(list.map((endpoint) => [endpoint.base, endpoint.credentials, endpoint.namespace])).to.deep.equal([
      ['https://m.example/hub/v2/', false, 'r.example'],
      ['https://m.example/v2/hub/', false, 'r.example'],
      ['http://r.example/v2/', true, ''],
      ['http://r.example/v2/', true, ''],
    ]);
    expect(list.every((endpoint) => !endpoint.plainFallback)).to.equal(true);
  });
});

describe('failures of registries', () => {
  it('reads Retry-After in both forms', () => {
    expect(parseRetryAfter('7')).to.equal(7000);
    expect(parseRetryAfter('Thu, 01 Jan 1970 00:00:09 GMT', 4000)).to.equal(5000);
    expect(parseRetryAfter('Thu, 01 Jan 1970 00:00:09 GMT', 90_000)).to.equal(0);
    for (const text of [undefined, '', 'soon', '-5']) expect(parseRetryAfter(text, 1e15)).to.equal(0);
  });

  it('prints what a registry says only short and clean', () => {
    expect(errorTextOf('{"errors":[{"code":"DENIED","message":"no\\u001b[31m way"}]}')).to.equal(
      'DENIED: no?[31m way',
    );
    expect(errorTextOf(JSON.stringify({ errors: [{ message: 'x'.repeat(5000) }] })).length).to.equal(200);
    for (const body of ['', '<html>', '[]', 'null', '{"errors":{}}']) expect(errorTextOf(body)).to.equal('');
  });

  it('backs off within bounds', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 60 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (attempt, random) => {
          const ms = backoffMs(defaultRetry, attempt, random);
          expect(ms).to.be.within(defaultRetry.delayFirstMs / 2, defaultRetry.delayMaxMs);
        },
      ),
    );
  });
});

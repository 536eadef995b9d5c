import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

import { expect } from 'chai';

import { background } from '../../../../lib/base/context.js';
import type { RegistryCredentials } from '../../../../lib/image/ports.js';
import { parseReference } from '../../../../lib/wire/oci/reference.js';
import { FakeRegistry, answer } from '../../../fakes/registry-server.js';
import type { BuiltImage } from '../../../tools/image-builder.js';
import { buildImage, buildLayer } from '../../../tools/image-builder.js';
import { buildTar } from '../../../tools/tar-builder.js';
import { Harness, failure } from './harness.js';

const ctx = background();
const basic = `Basic ${Buffer.from('me:se:cret').toString('base64')}`;
const login = { username: 'me', password: 'se:cret' };

describe('RegistryClient: logging in', function () {
  this.timeout(20_000);
  let registry: FakeRegistry;
  let harness: Harness;
  let image: BuiltImage;

  /** A source is one request to the runtime: manifest, then the config's blob. */
  const pull = async (credentials: Partial<RegistryCredentials>): Promise<void> => {
    const source = harness.open(credentials);
    const name = `${registry.host}/team/app:v1`;
    await source.fetchManifest(ctx, parseReference(name));
    await harness.blob(ctx, name, image.configDescriptor, source);
  };

  /** Asks for a bearer token that `/token` on this very server gives. */
  const tokenServer = (token: (count: number) => string, accepted: (header: string) => boolean): void => {
    let count = 0;
    registry.intercept = (seen, response) => {
      if (seen.url.startsWith('/token')) {
        count += 1;
        answer(response, 200, JSON.stringify({ token: token(count) }));
        return true;
      }
      if (accepted(seen.headers.authorization ?? '')) return false;
      const challenge = `Bearer realm="${registry.url}/token",service="svc",scope="repository:team/app:pull"`;
      answer(response, 401, '{}', { 'www-authenticate': challenge });
      return true;
    };
  };
  const tokenRequests = (): FakeRegistry['requests'] =>
    registry.requests.filter((seen) => seen.url.startsWith('/token'));

  beforeEach(async () => {
    registry = await FakeRegistry.start();
    harness = await Harness.open();
    image = buildImage([await buildLayer(ctx, buildTar([{ name: 'a', content: 'b' }]))]);
    registry.add('team/app', 'v1', image);
  });

  afterEach(async () => {
    await harness.close();
    await registry.stop();
  });

  it('sends a password only when it is asked to, then without being asked', async () => {
    registry.intercept = (seen, response) => {
      if (seen.headers.authorization === basic) return false;
      answer(response, 401, '{}', { 'www-authenticate': 'Basic realm="r"' });
      return true;
    };
    await pull(login);
    expect(registry.requests.map((seen) => seen.headers.authorization)).to.deep.equal([
      undefined,
      basic,
      basic,
    ]);
    registry.requests.length = 0;
    await pull(login);
    expect(registry.requests[0]?.headers.authorization, 'nothing is kept between requests').to.equal(
      undefined,
    );
  });

  it('says when a login is wanted or refused, and never shows it', async () => {
    registry.intercept = (_seen, response) => {
      answer(response, 401, '{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}', {
        'www-authenticate': 'Basic realm="r"',
      });
      return true;
    };
    for (const credentials of [{}, login]) {
      const error = await failure(pull(credentials));
      expect(error.class).to.equal('Unauthenticated');
      expect(error.message).to.match(/wants a login.*UNAUTHORIZED: no/);
      expect(JSON.stringify([error.message, String(error.cause), error.stack])).to.not.match(/cret|c2U6/);
    }
    registry.intercept = (_seen, response) => {
      answer(response, 403, '');
      return true;
    };
    expect((await failure(pull(login))).class).to.equal('PermissionDenied');
  });

  it('gets one token for a whole pull, with the login or without', async () => {
    tokenServer(
      () => 'tok',
      (header) => header === 'Bearer tok',
    );
    await pull(login);
    expect(tokenRequests().map((seen) => [seen.method, seen.url, seen.headers.authorization])).to.deep.equal([
      ['GET', '/token?service=svc&scope=repository%3Ateam%2Fapp%3Apull', basic],
    ]);
    await pull({});
    expect(tokenRequests()[1]?.headers.authorization).to.equal(undefined);
  });

  it('renews a token that ran out, once for all layers that wait for it', async () => {
    tokenServer(
      (count) => `tok${String(count)}`,
      (header) => header === `Bearer tok${String(tokenRequests().length)}` && tokenRequests().length > 0,
    );
    const source = harness.open(login);
    const name = `${registry.host}/team/app:v1`;
    await source.fetchManifest(ctx, parseReference(name));
    registry.requests.length = 0;
    let issued = 0;
    registry.intercept = (seen, response) => {
      if (seen.url.startsWith('/token')) {
        issued += 1;
        answer(response, 200, '{"access_token":"fresh"}');
        return true;
      }
      if (seen.headers.authorization === 'Bearer fresh') return false;
      answer(response, 401, '{}', { 'www-authenticate': `Bearer realm="${registry.url}/token"` });
      return true;
    };
    await Promise.all(
      Array.from({ length: 5 }, async () => harness.blob(ctx, name, image.configDescriptor, source)),
    );
    expect(issued).to.equal(1);
  });

  it('trades an identity token by POST and sends a registry token as it is', async () => {
    tokenServer(
      () => 'tok',
      (header) => header === 'Bearer tok' || header === 'Bearer given',
    );
    await pull({ identityToken: 'refresh me' });
    const [seen] = tokenRequests();
    expect(seen?.method).to.equal('POST');
    expect(Object.fromEntries(new URLSearchParams(seen?.body))).to.deep.equal({
      grant_type: 'refresh_token',
      client_id: 'herkos',
      service: 'svc',
      scope: 'repository:team/app:pull',
      refresh_token: 'refresh me',
    });
    registry.requests.length = 0;
    await pull({ registryToken: 'given' });
    expect(tokenRequests()).to.deep.equal([]);
    expect(registry.requests.every((request) => request.headers.authorization === 'Bearer given')).to.equal(
      true,
    );
  });

  it('stops when a token does not help', async () => {
    tokenServer(
      () => 'tok',
      () => false,
    );
    expect((await failure(pull(login))).class).to.equal('Unauthenticated');
    expect(registry.requests.length).to.equal(3);
  });

  const tokens: readonly (readonly [string, number, string, string])[] = [
    ['no token in the answer', 200, '{}', 'Unavailable'],
    ['an answer that is no JSON', 200, '<html>', 'Unavailable'],
    ['a token that would break a header', 200, '{"token":"a\\r\\nx: y"}', 'InvalidArgument'],
    ['an endless answer', 200, `{"token":"${'x'.repeat(300_000)}"}`, 'FailedPrecondition'],
    ['a refused login', 403, '{}', 'Unauthenticated'],
    ['a broken token server', 500, '', 'Unavailable'],
    ['a token server that is not there', 404, '', 'NotFound'],
  ];
  for (const [what, status, body, expected] of tokens) {
    it(`survives ${what}`, async () => {
      registry.intercept = (seen, response) => {
        if (seen.url.startsWith('/token')) answer(response, status, body);
        else answer(response, 401, '{}', { 'www-authenticate': `Bearer realm="${registry.url}/token"` });
        return true;
      };
      expect((await failure(pull(login))).class).to.equal(expected);
    });
  }

  it('asks no token server on this machine for a registry that is elsewhere', async () => {
    let realm = `${registry.url}/token`;
    const elsewhere = createServer((_request, response) => {
      answer(response, 401, '{}', { 'www-authenticate': `Bearer realm="${realm}"` });
    });
    await new Promise<void>((resolve) => elsewhere.listen(0, '127.0.0.1', resolve));
    // A proxy makes this server the one behind any name.
    const httpProxy = `http://127.0.0.1:${String((elsewhere.address() as AddressInfo).port)}`;
    const outside = await Harness.open({ proxy: { httpProxy, httpsProxy: undefined, noProxy: '' } });
    await outside.configure('registry.example', 'plain_http = true');
    const fetch = async (): Promise<unknown> =>
      outside.open(login).fetchManifest(ctx, parseReference('registry.example/app'));
    expect((await failure(fetch())).message).to.match(/token server \(http:\/\/127.* not one to send/);
    realm = 'http://169.254.169.254/token';
    expect((await failure(fetch())).message).to.match(/not one to send a login to/);
    expect(registry.requests).to.deep.equal([]);
    await outside.close();
    elsewhere.close();
  });

  it('sends no login to a token server it cannot trust', async () => {
    for (const realm of ['ftp://x/token', 'http://user:pw@127.0.0.1/token', 'token', '']) {
      registry.intercept = (_seen, response) => {
        answer(response, 401, '{}', { 'www-authenticate': `Bearer realm="${realm}"` });
        return true;
      };
      expect((await failure(pull(login))).message, realm).to.match(
        /token server \(.*\) is not one to send a login to/,
      );
    }
  });

  it('takes a login along no redirect to another place', async () => {
    const storage = await FakeRegistry.start();
    storage.blobs.set(image.configDescriptor.digest, image.config);
    registry.intercept = (seen, response) => {
      if (seen.headers.authorization !== basic)
        answer(response, 401, '{}', { 'www-authenticate': 'Basic realm="r"' });
      else if (seen.url.includes('/blobs/'))
        answer(response, 307, '', { location: `${storage.url}${seen.url}?secret=signature` });
      else return false;
      return true;
    };
    await pull(login);
    expect(storage.requests.length).to.equal(1);
    expect(storage.requests[0]?.headers.authorization).to.equal(undefined);
    expect(storage.requests[0]?.headers.cookie).to.equal(undefined);

    storage.intercept = (_seen, response) => {
      answer(response, 401, '{}', { 'www-authenticate': 'Basic realm="storage"' });
      return true;
    };
    storage.requests.length = 0;
    const error = await failure(pull(login));
    expect(error.class).to.equal('Unauthenticated');
    expect(error.message).to.contain(storage.host).and.not.contain('signature');
    expect(storage.requests.length).to.equal(1);
    await storage.stop();
  });

  it('keeps it along a redirect within the registry', async () => {
    registry.intercept = (seen, response) => {
      if (seen.headers.authorization !== basic)
        answer(response, 401, '{}', { 'www-authenticate': 'Basic realm="r"' });
      else if (seen.url.includes('/blobs/') && !seen.url.includes('again'))
        answer(response, 302, '', { location: `${seen.url}?again` });
      else return false;
      return true;
    };
    await pull(login);
    expect(registry.requests.at(-1)?.headers.authorization).to.equal(basic);
  });
});

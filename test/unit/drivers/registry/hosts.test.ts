import { connect } from 'node:net';
import { createServer as createHttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { background } from '../../../../lib/base/context.js';
import { proxyFor } from '../../../../lib/drivers/registry/proxy.js';
import { parseReference } from '../../../../lib/wire/oci/reference.js';
import { FakeRegistry, answer } from '../../../fakes/registry-server.js';
import type { Certificates } from '../../../tools/certificates.js';
import { makeCertificates } from '../../../tools/certificates.js';
import type { BuiltImage } from '../../../tools/image-builder.js';
import { buildImage, buildLayer } from '../../../tools/image-builder.js';
import { buildTar } from '../../../tools/tar-builder.js';
import { Harness, failure } from './harness.js';

const ctx = background();

describe('RegistryClient: settings of hosts', function () {
  this.timeout(20_000);
  let directory: string;
  let certificates: Certificates;
  let image: BuiltImage;
  let harness: Harness;
  const servers: FakeRegistry[] = [];

  const start = async (...args: Parameters<typeof FakeRegistry.start>): Promise<FakeRegistry> => {
    const server = await FakeRegistry.start(...args);
    servers.push(server);
    server.add('team/app', 'v1', image);
    return server;
  };
  const startTls = async (): Promise<FakeRegistry> =>
    start({ cert: certificates.cert, key: certificates.key });
  const fetch = async (host: string): Promise<unknown> =>
    harness
      .open({ username: 'me', password: 'secret' })
      .fetchManifest(ctx, parseReference(`${host}/team/app:v1`));
  const blob = async (host: string): Promise<Buffer> =>
    harness.blob(ctx, `${host}/team/app:v1`, image.configDescriptor);

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'herkos-hosts-'));
    certificates = await makeCertificates(directory);
    image = buildImage([await buildLayer(ctx, buildTar([{ name: 'a', content: 'b' }]))]);
  });

  after(async () => {
    await rm(directory, { recursive: true, force: true });
  });

  beforeEach(async () => {
    harness = await Harness.open();
  });

  afterEach(async () => {
    await harness.close();
    await Promise.all(servers.splice(0).map(async (server) => server.stop()));
  });

  describe('TLS', () => {
    it('refuses a certificate of an unknown authority at once and says what to do', async () => {
      const registry = await startTls();
      const error = await failure(fetch(registry.host));
      expect(error.message).to.match(/^RegistryUnavailable: .*certificate is not trusted.*set ca/);
      expect(registry.requests).to.deep.equal([]);
    });

    it('trusts the authority that is configured, or nobody in particular', async () => {
      const registry = await startTls();
      await harness.configure(registry.host, `ca = "${certificates.caPath}"\n`);
      await fetch(registry.host);
      await harness.configure(registry.host, 'skip_verify = true\n');
      await fetch(registry.host);
      await harness.configure(registry.host, `ca = ["${certificates.certPath}"]\nskip_verify = false\n`);
      await failure(fetch(registry.host));
    });

    it('shows its own certificate where one is wanted, and to nobody else', async () => {
      const tls = { cert: certificates.cert, key: certificates.key, ca: certificates.ca, requestCert: true };
      const registry = await start({ ...tls, rejectUnauthorized: true });
      await harness.configure(registry.host, `ca = "${certificates.caPath}"\n`);
      await failure(fetch(registry.host));
      const files = `client_cert = "${certificates.clientCertPath}"\nclient_key = "${certificates.clientKeyPath}"\n`;
      await harness.configure(registry.host, `ca = "${certificates.caPath}"\n${files}`);
      await fetch(registry.host);

      const other = await start({ ...tls, rejectUnauthorized: true });
      await harness.configure(other.host, `ca = "${certificates.caPath}"\n${files}`);
      registry.intercept = (seen, response) => {
        answer(response, 307, '', { location: `${other.url}${seen.url}` });
        return true;
      };
      await failure(fetch(registry.host));
      expect(other.requests).to.deep.equal([]);
    });

    it('refuses a redirect from HTTPS to plain HTTP', async () => {
      const registry = await startTls();
      const plain = await start();
      await harness.configure(registry.host, `ca = "${certificates.caPath}"\n`);
      registry.intercept = (seen, response) => {
        answer(response, 307, '', { location: `${plain.url}${seen.url}` });
        return true;
      };
      expect((await failure(fetch(registry.host))).message).to.match(/from HTTPS to plain HTTP/);
      registry.intercept = (_seen, response) => {
        answer(response, 401, '', { 'www-authenticate': `Bearer realm="${plain.url}/token"` });
        return true;
      };
      expect((await failure(fetch(registry.host))).message).to.match(/not one to send a login to/);
      expect(plain.requests).to.deep.equal([]);
    });

    it('does not fall back to plain HTTP where HTTPS is configured', async () => {
      const registry = await start();
      await harness.configure(registry.host, 'skip_verify = true\n');
      await failure(fetch(registry.host));
      expect(registry.requests).to.deep.equal([]);
      await harness.configure(registry.host, 'plain_http = true\n');
      await fetch(registry.host);
    });
  });

  describe('mirrors', () => {
    const configureMirrors = async (registry: FakeRegistry, ...mirrors: string[]): Promise<void> => {
      const tables = mirrors.map((lines) => `[[mirror]]\n${lines}\n`).join('\n');
      await harness.configure(registry.host, `server = "${registry.url}"\n${tables}`);
    };

    it('are asked first, with the name of the registry and without its login', async () => {
      const registry = await start();
      const mirror = await start();
      mirror.intercept = (seen, response) => {
        if (seen.headers.authorization === undefined) return false;
        answer(response, 500, '');
        return true;
      };
      await configureMirrors(registry, `url = "${mirror.url}"`);
      await fetch(registry.host);
      expect(registry.requests).to.deep.equal([]);
      expect(mirror.requests[0]?.url).to.equal(
        `/v2/team/app/manifests/v1?ns=${encodeURIComponent(registry.host)}`,
      );
    });

    it('that ask for a login do not get it', async () => {
      const registry = await start();
      const mirror = await start();
      mirror.intercept = (_seen, response) => {
        answer(response, 401, '{}', { 'www-authenticate': 'Basic realm="m"' });
        return true;
      };
      await configureMirrors(registry, `url = "${mirror.url}"`);
      await fetch(registry.host);
      expect(mirror.requests.map((seen) => seen.headers.authorization)).to.deep.equal([undefined]);
      expect(registry.requests.length).to.equal(1);
    });

    it('that are down, broken or empty are passed over, in order', async () => {
      const registry = await start();
      const down = await FakeRegistry.start();
      const { url } = down;
      await down.stop();
      const broken = await start();
      broken.intercept = (_seen, response) => {
        answer(response, 503, '');
        return true;
      };
      const empty = await FakeRegistry.start();
      servers.push(empty);
      await configureMirrors(registry, `url = "${url}"`, `url = "${broken.url}"`, `url = "${empty.url}"`);
      await fetch(registry.host);
      expect([broken.requests.length, empty.requests.length, registry.requests.length]).to.deep.equal([
        2, 1, 1,
      ]);
      expect((await blob(registry.host)).equals(image.config)).to.equal(true);
      registry.manifests.clear();
      const error = await failure(fetch(registry.host));
      expect(error.class).to.equal('NotFound');
      expect(error.message).to.contain('before that:').and.contain('HTTP status 503');
    });

    it('that may only pull are not asked what a tag means', async () => {
      const registry = await start();
      const mirror = await start();
      await configureMirrors(registry, `url = "${mirror.url}"\ncapabilities = ["pull"]`);
      await fetch(registry.host);
      expect(mirror.requests.length).to.equal(0);
      await blob(registry.host);
      expect(mirror.requests.length).to.equal(1);
    });

    it('below a path are asked there', async () => {
      const registry = await start();
      const mirror = await start();
      await configureMirrors(registry, `url = "${mirror.url}/hub"`);
      await fetch(registry.host);
      await configureMirrors(registry, `url = "${mirror.url}/x/v2"\noverride_path = true`);
      await fetch(registry.host);
      expect(mirror.requests.map((seen) => seen.url.split('?')[0])).to.deep.equal([
        '/hub/v2/team/app/manifests/v1',
        '/x/v2/team/app/manifests/v1',
      ]);
    });

    it('that break in the middle of a blob are replaced there', async () => {
      const registry = await start();
      const mirror = await start();
      mirror.intercept = (seen, response) => {
        if (seen.headers.range !== undefined) answer(response, 500, '');
        else {
          response.writeHead(200, { 'content-length': image.config.length });
          response.write(image.config.subarray(0, 20), () =>
            setTimeout(() => response.socket?.resetAndDestroy(), 20),
          );
        }
        return true;
      };
      await configureMirrors(registry, `url = "${mirror.url}"`);
      expect((await blob(registry.host)).equals(image.config)).to.equal(true);
      expect(registry.requests.at(-1)?.headers.range).to.equal('bytes=20-');
    });

    it('that deliver wrong bytes are not asked again for them', async () => {
      const registry = await start();
      const mirror = await start();
      mirror.blobs.set(image.configDescriptor.digest, Buffer.alloc(image.config.length, 1));
      await configureMirrors(registry, `url = "${mirror.url}"`);
      const source = harness.open();
      const name = `${registry.host}/team/app:v1`;
      expect((await failure(harness.blob(ctx, name, image.configDescriptor, source))).class).to.equal(
        'DataLoss',
      );
      expect((await harness.blob(ctx, name, image.configDescriptor, source)).equals(image.config)).to.equal(
        true,
      );
    });
  });

  describe('files', () => {
    const bad: readonly (readonly [string, string, RegExp])[] = [
      ['an unknown key', 'headers = {}', /headers/],
      ['what is no TOML', '[', /not valid TOML/],
      ['a URL of another kind', 'server = "ftp://x"', /server: must be/],
      ['a URL with a password', 'server = "https://a:b@x"', /server: must be/],
      ['a mirror without a URL', '[[mirror]]', /mirror\.0\.url/],
      ['an unknown capability', '[[mirror]]\nurl = "https://x"\ncapabilities = ["push"]', /capabilities/],
      ['a certificate without its key', 'client_cert = "/x"', /belong together/],
      ['a file that is not there', 'ca = "/does/not/exist.pem"', /exist\.pem, which cannot be read/],
      ['a relative path', 'ca = "ca.pem"', /absolute/],
    ];
    for (const [what, text, why] of bad) {
      it(`with ${what} are refused by name`, async () => {
        await harness.configure('r.example', text);
        const error = await failure(fetch('r.example'));
        expect(error.class).to.equal('FailedPrecondition');
        expect(error.message).to.match(why).and.contain('r.example.toml');
      });
    }

    it('with what is no certificate are refused', async () => {
      await harness.configure(
        'r.example',
        `client_cert = "${directory}/server.ext"\nclient_key = "${directory}/server.ext"`,
      );
      expect((await failure(fetch('r.example'))).message).to.match(/certificate or key .* cannot be used/);
    });

    it('may hold a default for every other host', async () => {
      const mirror = await start();
      await harness.configure('_default', `[[mirror]]\nurl = "${mirror.url}"`);
      await fetch('r.example');
      expect(mirror.requests[0]?.url).to.equal('/v2/team/app/manifests/v1?ns=r.example');
    });
  });

  describe('proxies', () => {
    it('carry HTTPS in a tunnel and plain HTTP by URL, and get their own login', async () => {
      const seen: string[] = [];
      const plain = await start();
      const proxy = createHttpServer((request, response) => {
        seen.push(
          `${request.method ?? ''} ${request.url ?? ''} ${request.headers['proxy-authorization'] ?? ''}`,
        );
        const path = new URL(request.url ?? '').pathname;
        const manifest = plain.manifests.get(`team/app:${path.split('/').at(-1) ?? ''}`);
        response.writeHead(200, { 'content-type': manifest?.mediaType ?? '' });
        response.end(manifest?.bytes);
      });
      const tls = await startTls();
      proxy.on('connect', (request, socket) => {
        seen.push(`CONNECT ${request.url ?? ''}`);
        const upstream = connect(Number(tls.host.split(':')[1]), '127.0.0.1', () => {
          socket.write('HTTP/1.1 200 OK\r\n\r\n');
          upstream.pipe(socket).pipe(upstream);
        });
        upstream.on('error', () => undefined);
        socket.on('error', () => undefined);
      });
      await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
      const url = `http://p:q@127.0.0.1:${String((proxy.address() as AddressInfo).port)}`;
      await harness.close();
      harness = await Harness.open({ proxy: { httpProxy: url, httpsProxy: url, noProxy: 'direct.example' } });
      await harness.configure('r.example', 'plain_http = true');
      await harness.configure('s.example', 'skip_verify = true');
      await fetch('r.example');
      await fetch('s.example');
      expect(seen).to.deep.equal([
        `GET http://r.example/v2/team/app/manifests/v1 Basic ${Buffer.from('p:q').toString('base64')}`,
        'CONNECT s.example:443',
      ]);
      expect(tls.requests.length).to.equal(1);
      expect(tls.requests[0]?.headers['proxy-authorization']).to.equal(undefined);
      proxy.closeAllConnections();
      proxy.close();
    });

    it('that cannot be used are named without their login', async () => {
      await harness.close();
      harness = await Harness.open({
        proxy: { httpProxy: undefined, httpsProxy: 'socks9://p:secret@x', noProxy: '' },
      });
      const error = await failure(fetch('r.example'));
      expect(error.message).to.match(/proxy/).and.not.contain('secret');
      expect(
        proxyFor(new URL('https://r.example'), { httpProxy: 'x', httpsProxy: undefined, noProxy: '' }),
      ).to.equal(undefined);
    });
  });
});

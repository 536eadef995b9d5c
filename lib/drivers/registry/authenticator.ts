/**
 * Logging in to registries: Basic, and Bearer with a token server (distribution-spec and Docker's token
 * authentication specification). Credentials and tokens live as long as one request to the runtime (S7).
 */
import type { Context } from '../../base/context.js';
import { underDeadline } from '../../base/context.js';
import { HerkosError } from '../../base/errors.js';
import { KeyedLock } from '../../base/keyed-lock.js';
import type { RegistryCredentials } from '../../image/ports.js';
import type { Challenge } from './challenge.js';
import { parseChallenges } from './challenge.js';
import type { Endpoint } from './endpoints.js';
import { AttemptFailure, unavailable } from './failure.js';
import type { TlsSettings } from './hosts-file.js';
import { leadsInside } from './proxy.js';
import { documentTimeoutMs, tokenBytesMax } from './settings.js';
import type { HttpReply, HttpRequest, TlsLookup, Transport } from './transport.js';
import { failureOf, readBody } from './transport.js';

const clientId = 'herkos';
const scopeLengthMax = 2048;
const tokenPattern = /^[\x21-\x7e]+$/;

export class Authenticator {
  readonly #credentials: RegistryCredentials | undefined;
  readonly #transport: Transport;
  readonly #tlsOf: TlsLookup;
  /** Authorization headers by endpoint and repository. */
  readonly #headers = new Map<string, string>();
  readonly #lock = new KeyedLock();

  constructor(credentials: RegistryCredentials | undefined, transport: Transport, tlsOf: TlsLookup) {
    this.#credentials = credentials;
    this.#transport = transport;
    this.#tlsOf = tlsOf;
  }

  /** What to send without being asked: what worked before, or a token that the client gave. */
  header(endpoint: Endpoint, repository: string): string | undefined {
    const known = this.#headers.get(keyOf(endpoint, repository));
    if (known !== undefined) return known;
    const token = this.#credentialsFor(endpoint)?.registryToken ?? '';
    return token === '' ? undefined : `Bearer ${checkToken(token, 'the given registry token')}`;
  }

  /**
   * Answers a 401. `sent` is what the refused request carried.
   * @returns the header to try next, or undefined when there is none that could help.
   * @throws AttemptFailure, or the context's reason.
   */
  async answer(
    ctx: Context,
    endpoint: Endpoint,
    repository: string,
    reply: HttpReply,
    sent: string | undefined,
  ): Promise<string | undefined> {
    const key = keyOf(endpoint, repository);
    return this.#lock.run(ctx, key, async () => {
      // Another layer's request may have been told the same and have renewed the token meanwhile.
      const known = this.#headers.get(key);
      if (known !== undefined && known !== sent) return known;
      const header = await this.#login(ctx, endpoint, repository, reply);
      if (header === undefined) return undefined;
      this.#headers.set(key, header);
      return header === sent ? undefined : header;
    });
  }

  async #login(
    ctx: Context,
    endpoint: Endpoint,
    repository: string,
    reply: HttpReply,
  ): Promise<string | undefined> {
    const challenges = parseChallenges(reply.headers('www-authenticate'));
    const credentials = this.#credentialsFor(endpoint);
    const bearer = challenges.find((challenge) => challenge.scheme === 'bearer');
    if (bearer?.parameters.has('realm') === true) {
      const token = await this.#fetchToken(ctx, endpoint, repository, bearer, reply.secure);
      return `Bearer ${token}`;
    }
    if (!challenges.some((challenge) => challenge.scheme === 'basic')) return undefined;
    return credentials === undefined ? undefined : basicOf(credentials);
  }

  async #fetchToken(
    ctx: Context,
    endpoint: Endpoint,
    repository: string,
    challenge: Challenge,
    secure: boolean,
  ): Promise<string> {
    const credentials = this.#credentialsFor(endpoint);
    const realm = checkRealm(challenge.parameters.get('realm') ?? '', endpoint, secure);
    const request = tokenRequest(
      realm,
      repository,
      challenge,
      credentials,
      await this.#tlsFor(realm, endpoint),
    );
    return underDeadline(ctx, documentTimeoutMs, `getting a token from ${realm.host}`, async (inner) => {
      const reply = await this.#transport.send(inner, request);
      if (reply.status !== 200) throw loginFailure(await failureOf(inner, reply), reply.status, request.what);
      return readToken(await readBody(inner, reply, tokenBytesMax), request.what);
    });
  }

  /** The registry's own trust holds for its token server too, its client key for no other host. */
  async #tlsFor(realm: URL, endpoint: Endpoint): Promise<TlsSettings> {
    if (realm.host === new URL(endpoint.base).host) return endpoint.tls;
    const own = await this.#tlsOf(realm.host);
    return { ...own, ca: [...own.ca, ...endpoint.tls.ca] };
  }

  #credentialsFor(endpoint: Endpoint): RegistryCredentials | undefined {
    return endpoint.credentials ? this.#credentials : undefined;
  }
}

function tokenRequest(
  realm: URL,
  repository: string,
  challenge: Challenge,
  credentials: RegistryCredentials | undefined,
  tls: TlsSettings,
): HttpRequest {
  const what = `token for ${repository}`;
  const service = challenge.parameters.get('service') ?? '';
  const asked = challenge.parameters.get('scope') ?? '';
  const scope = asked === '' || asked.length > scopeLengthMax ? `repository:${repository}:pull` : asked;
  const headers = { accept: 'application/json' };
  if (credentials !== undefined && credentials.identityToken !== '') {
    const form = new URLSearchParams({
      grant_type: 'refresh_token',
      client_id: clientId,
      service,
      scope,
      refresh_token: credentials.identityToken,
    });
    const formHeaders = { ...headers, 'content-type': 'application/x-www-form-urlencoded' };
    return {
      method: 'POST',
      url: realm,
      headers: formHeaders,
      body: form.toString(),
      authorization: undefined,
      tls,
      what,
    };
  }
  const url = new URL(realm);
  if (service !== '') url.searchParams.set('service', service);
  url.searchParams.set('scope', scope);
  const authorization = credentials === undefined ? undefined : basicOf(credentials);
  return { method: 'GET', url, headers, authorization, tls, what };
}

/**
 * A token server on plain HTTP would see the password of a registry on HTTPS: refused. So is one that a registry
 * elsewhere places on this machine or its link, as with redirects.
 */
function checkRealm(text: string, endpoint: Endpoint, secure: boolean): URL {
  const realm = URL.canParse(text) ? new URL(text) : undefined;
  const allowed = realm?.protocol === 'https:' || (realm?.protocol === 'http:' && !secure);
  const isOpen = realm !== undefined && allowed && realm.username === '' && realm.password === '';
  if (isOpen && !leadsInside(new URL(endpoint.base).hostname, realm.hostname)) return realm;
  throw new AttemptFailure(
    new HerkosError(
      'FailedPrecondition',
      `${new URL(endpoint.base).host}: its token server (${shown(realm)}) is not one to send a login to`,
    ),
    false,
  );
}

function shown(realm: URL | undefined): string {
  return realm === undefined ? 'no URL' : `${realm.protocol}//${realm.host}`.slice(0, 100);
}

function readToken(bytes: Buffer, what: string): string {
  let document: unknown;
  try {
    document = JSON.parse(bytes.toString('utf8'));
  } catch {
    document = undefined;
  }
  if (typeof document === 'object' && document !== null) {
    const token = 'token' in document && document.token !== '' ? document.token : undefined;
    const other = 'access_token' in document ? document.access_token : undefined;
    const found = token ?? other;
    if (typeof found === 'string' && found !== '') return checkToken(found, what);
  }
  throw new AttemptFailure(unavailable(what, 'the token server answered without a token'), false);
}

/** A token becomes a header: nothing but visible ASCII may be in it. */
function checkToken(token: string, what: string): string {
  if (tokenPattern.test(token)) return token;
  throw new AttemptFailure(new HerkosError('InvalidArgument', `${what} cannot be sent in a header`), false);
}

/** Token servers answer a wrong password with 400 or 403 as often as with 401. */
function loginFailure(failure: AttemptFailure, status: number, what: string): AttemptFailure {
  if (status !== 400 && status !== 401 && status !== 403) return failure;
  const error = new HerkosError(
    'Unauthenticated',
    `${what}: the login was refused: ${failure.error.message}`,
  );
  return new AttemptFailure(error, false);
}

function basicOf(credentials: RegistryCredentials): string | undefined {
  if (credentials.username === '' && credentials.password === '') return undefined;
  return `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`, 'utf8').toString('base64')}`;
}

function keyOf(endpoint: Endpoint, repository: string): string {
  return `${endpoint.base} ${repository}`;
}

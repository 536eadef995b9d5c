/** Images from registries over HTTP (OCI distribution-spec, "Pull"). */
import type { Context } from '../../base/context.js';
import type {
  Descriptor,
  ImageName,
  ImageSource,
  RegistryClient,
  RegistryCredentials,
} from '../../image/ports.js';
import { isDigest, sha256Digest } from '../../wire/oci/digest.js';
import { manifestBytesMax } from '../../wire/oci/manifest.js';
import { acceptedManifestTypes } from '../../wire/oci/media-types.js';
import { formatReference } from '../../wire/oci/reference.js';
import { Authenticator } from './authenticator.js';
import { BlobReader } from './blob.js';
import { Dispatchers } from './dispatchers.js';
import { endpointsOf } from './endpoints.js';
import { AttemptFailure, dataLoss } from './failure.js';
import type { TlsSettings } from './hosts-file.js';
import { defaultTls, readHostSettings } from './hosts-file.js';
import { RegistrySession } from './session.js';
import type { RegistrySettings } from './settings.js';
import { Transport, readBody } from './transport.js';

export class HttpRegistryClient implements RegistryClient {
  readonly #settings: RegistrySettings;
  readonly #dispatchers: Dispatchers;

  constructor(settings: RegistrySettings) {
    this.#settings = settings;
    this.#dispatchers = new Dispatchers(settings);
  }

  open(credentials: RegistryCredentials | undefined): ImageSource {
    return new RegistrySource(this.#settings, this.#dispatchers, credentials);
  }

  /**
   * Reads the system's trusted roots, some 40 ms during which nothing else runs: a daemon does it before
   * it serves. Without it the first pull over HTTPS does.
   */
  async prepare(): Promise<void> {
    await this.#dispatchers.for(new URL('https://localhost'), defaultTls);
  }

  /** Breaks what is under way; idempotent. */
  async destroy(): Promise<void> {
    await this.#dispatchers.destroy();
  }
}

interface HostState {
  readonly session: RegistrySession;
  readonly blobs: BlobReader;
}

class RegistrySource implements ImageSource {
  readonly #settings: RegistrySettings;
  readonly #transport: Transport;
  readonly #authenticator: Authenticator;
  /** By registry host; a source serves one image and knows one host. */
  readonly #hosts = new Map<string, Promise<HostState>>();

  constructor(
    settings: RegistrySettings,
    dispatchers: Dispatchers,
    credentials: RegistryCredentials | undefined,
  ) {
    this.#settings = settings;
    const tlsOf = async (host: string): Promise<TlsSettings> => {
      const found = await readHostSettings(settings.hostsDirectory, host);
      return found === undefined ? defaultTls : { ...found.tls, clientCert: undefined, clientKey: undefined };
    };
    this.#transport = new Transport(dispatchers, settings.version, tlsOf);
    this.#authenticator = new Authenticator(credentials, this.#transport, tlsOf);
  }

  async fetchManifest(ctx: Context, name: ImageName): Promise<{ descriptor: Descriptor; bytes: Buffer }> {
    const { session } = await this.#host(name.host);
    const what = formatReference(name);
    return session.overEndpoints(
      ctx,
      name.digest === undefined ? 'resolve' : 'pull',
      async (inner, endpoint) => {
        const reply = await session.get(inner, endpoint, {
          repository: name.repository,
          path: `manifests/${name.digest ?? name.tag ?? 'latest'}`,
          headers: { accept: acceptedManifestTypes.join(', ') },
          what,
        });
        const bytes = await readBody(inner, reply, manifestBytesMax);
        const digest = sha256Digest(bytes);
        const told = name.digest ?? reply.header('docker-content-digest');
        // A digest of another algorithm in the header is no promise that can be kept or broken here.
        if (told !== undefined && isDigest(told) && told !== digest)
          throw new AttemptFailure(
            dataLoss(reply.where, `the manifest has the digest ${digest} instead of ${told}`),
            false,
          );
        const mediaType = (reply.header('content-type') ?? '').split(';')[0]?.trim() ?? '';
        return { descriptor: { mediaType, digest, sizeBytes: bytes.length }, bytes };
      },
    );
  }

  async *fetchBlob(
    ctx: Context,
    name: ImageName,
    blob: Descriptor,
    options: { readonly verify?: boolean } = {},
  ): AsyncGenerator<Buffer, void, void> {
    const { blobs } = await this.#host(name.host);
    yield* blobs.read(ctx, name, blob, options.verify ?? true);
  }

  async #host(host: string): Promise<HostState> {
    let state = this.#hosts.get(host);
    if (state === undefined) {
      state = this.#openHost(host);
      this.#hosts.set(host, state);
    }
    return state;
  }

  async #openHost(host: string): Promise<HostState> {
    const endpoints = endpointsOf(host, await readHostSettings(this.#settings.hostsDirectory, host));
    const session = new RegistrySession(
      endpoints,
      this.#transport,
      this.#authenticator,
      this.#settings.retry,
    );
    return { session, blobs: new BlobReader(session) };
  }
}

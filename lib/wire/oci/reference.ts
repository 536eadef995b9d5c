/**
 * Image references: the grammar of the distribution project's reference package and the defaults
 * every client applies (no host: docker.io; one word: library/word; no tag: latest).
 */
import { isIPv6 } from 'node:net';

import { HerkosError } from '../../base/errors.js';
import { isDigest } from './digest.js';
import type { ImageName } from './types.js';

export const defaultHost = 'docker.io';
const legacyDefaultHost = 'index.docker.io';
const officialPrefix = 'library/';
const defaultTag = 'latest';

/** Longest reference that is looked at: name 255, tag 128, digest 71 and the marks between them. */
const referenceLengthMax = 460;
const nameLengthMax = 255;

const hostLabel = '[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?';
const hostPattern = new RegExp(
  `^(?:${hostLabel}(?:\\.${hostLabel})*|\\[(?<ipv6>[0-9a-fA-F:.]+)\\])(?::(?<port>[0-9]{1,5}))?$`,
);
const pathPartPattern = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const tagPattern = /^[0-9A-Za-z_][0-9A-Za-z_.-]{0,127}$/;
const bareIdPattern = /^[0-9a-f]{64}$/;

/**
 * Reads a reference and fills in what it leaves out. A digest wins over a tag beside it, as in
 * containerd: `name:tag@sha256:…` is the image of that digest and gets no tag.
 * @throws HerkosError `InvalidArgument` that says which part is wrong.
 */
export function parseReference(text: string): ImageName {
  if (text.length > referenceLengthMax) throw invalid(text.slice(0, 60) + '…', 'it is too long');
  const at = text.indexOf('@');
  const digest = at === -1 ? undefined : text.slice(at + 1);
  if (digest !== undefined && !isDigest(digest))
    throw invalid(text, `'${digest}' is not a digest (sha256: and 64 lower-case hex digits)`);
  const { name, tag } = splitTag(at === -1 ? text : text.slice(0, at));
  if (tag !== undefined && !tagPattern.test(tag)) throw invalid(text, `'${tag}' is not a tag`);
  if (bareIdPattern.test(name)) throw invalid(text, '64 hex digits are an image id, not a name');
  const { host, repository } = splitHost(name, text);
  if (digest !== undefined) return { host, repository, tag: undefined, digest };
  return { host, repository, tag: tag ?? defaultTag, digest: undefined };
}

/** `host/path:tag` or `host/path@digest`. */
export function formatReference(name: ImageName): string {
  const base = familiarBase(name);
  return name.digest === undefined ? `${base}:${name.tag ?? defaultTag}` : `${base}@${name.digest}`;
}

/** `host/path`, to which a tag or a digest is added. */
export function familiarBase(name: Pick<ImageName, 'host' | 'repository'>): string {
  return `${name.host}/${name.repository}`;
}

/** True when `host[:port]` is one that a reference may name; such a text is safe as a file name. */
export function isRegistryHost(text: string): boolean {
  const match = hostPattern.exec(text);
  if (match === null) return false;
  const ipv6 = match.groups?.['ipv6'];
  const port = match.groups?.['port'];
  return (
    (ipv6 === undefined || isIPv6(ipv6)) && (port === undefined || (Number(port) > 0 && Number(port) < 65536))
  );
}

function splitTag(text: string): { name: string; tag: string | undefined } {
  const colon = text.lastIndexOf(':');
  // A colon before the last slash belongs to a port.
  if (colon === -1 || colon < text.lastIndexOf('/')) return { name: text, tag: undefined };
  return { name: text.slice(0, colon), tag: text.slice(colon + 1) };
}

function splitHost(name: string, text: string): { host: string; repository: string } {
  if (name === '') throw invalid(text, 'the name is empty');
  const slash = name.indexOf('/');
  const first = slash === -1 ? '' : name.slice(0, slash);
  const isHost = /[.:[\]]/.test(first) || first === 'localhost' || first !== first.toLowerCase();
  let host = isHost ? first : defaultHost;
  let repository = isHost ? name.slice(slash + 1) : name;
  if (!isRegistryHost(host)) throw invalid(text, `'${host}' is not a host`);
  if (host === legacyDefaultHost) host = defaultHost;
  if (host === defaultHost && !repository.includes('/')) repository = officialPrefix + repository;
  for (const part of repository.split('/')) {
    if (!pathPartPattern.test(part))
      throw invalid(
        text,
        part === ''
          ? 'a part of the name is empty'
          : `'${part}' may have lower-case letters and digits, with . _ - between them`,
      );
  }
  if (host.length + 1 + repository.length > nameLengthMax)
    throw invalid(text, `the name is longer than ${String(nameLengthMax)} characters`);
  return { host, repository };
}

function invalid(text: string, why: string): HerkosError {
  return new HerkosError('InvalidArgument', `image reference '${text}' is not valid: ${why}`, {
    reason: 'IMAGE_REFERENCE_INVALID',
  });
}

import { createHash } from 'node:crypto';

const digestPattern = /^sha256:[0-9a-f]{64}$/;

/**
 * True for `sha256:<64 lower-case hex>` (OCI image-spec, descriptor.md). SHA-512 is registered too but
 * no registry serves it; it is refused like any other algorithm, so that a digest is always a safe file name.
 */
export function isDigest(text: string): boolean {
  return digestPattern.test(text);
}

/** The 64 hex digits of a checked digest. */
export function hexOfDigest(digest: string): string {
  return digest.slice('sha256:'.length);
}

export function sha256Digest(bytes: string | Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

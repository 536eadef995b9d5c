import { randomBytes } from 'node:crypto';

/** A new object id: 64 lower-case hex digits, as CRI clients expect of containers and sandboxes. */
export function newId(): string {
  return randomBytes(32).toString('hex');
}

const idPattern = /^[0-9a-f]{64}$/;

/** True for a full id; ids become file names, so nothing else may pass as one. */
export function isId(text: string): boolean {
  return idPattern.test(text);
}

/** The first 13 digits, as `crictl ps` shows them; for people, not for look-ups. */
export function shortId(id: string): string {
  return id.slice(0, 13);
}

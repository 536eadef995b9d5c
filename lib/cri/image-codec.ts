import Long from 'long';

import type { ImageRecord } from '../model/image.js';
import type { v1 } from './api.js';
import { requiredText } from './checks.js';

/** What a request calls the image. */
export function requiredReference(spec: v1.ImageSpec.$Properties | null | undefined): string {
  return requiredText(spec?.image, 'image.image');
}

/** Clients take a size of 0 for a broken answer. */
const sizeBytesMin = 1;

export function encodeImage(record: ImageRecord): v1.Image.$Properties {
  return {
    id: record.id,
    repoTags: [...record.repoTags],
    repoDigests: [...record.repoDigests],
    size: Long.fromNumber(Math.max(sizeBytesMin, record.sizeBytes), true),
    ...encodeUser(record.run.user),
    pinned: record.pinned,
    // The same whatever name it was asked for by: clients compare what two names of one image give.
    spec: { image: record.repoTags[0] ?? record.repoDigests[0] ?? record.id },
  };
}

/** `user[:group]` of the image config: a number is a uid, anything else a name. The group is not told. */
function encodeUser(user: string): Pick<v1.Image.$Properties, 'uid' | 'username'> {
  const name = user.split(':')[0] ?? '';
  if (name === '') return {};
  return /^\d{1,10}$/.test(name) ? { uid: { value: Long.fromString(name) } } : { username: name };
}

import { HerkosError } from '../../base/errors.js';

/** Starts with a letter or digit, so that no id is `.`, `..` or hidden; room is left for suffixes below NAME_MAX. */
const idPattern = /^[0-9A-Za-z][0-9A-Za-z._:-]{0,199}$/;
const extension = '.json';

/** `sha256:ab…` becomes `sha256+ab….json`: `+` is in no id, so the way back is unambiguous. */
export function fileNameOfId(id: string): string {
  if (!idPattern.test(id))
    throw new HerkosError('InvalidArgument', `'${id.slice(0, 80)}' cannot be the id of a record`);
  return `${id.replaceAll(':', '+')}${extension}`;
}

/** The id whose record has this file name, or undefined when no record has. */
export function idOfFileName(name: string): string | undefined {
  if (!name.endsWith(extension) || name.includes(':')) return undefined;
  const id = name.slice(0, -extension.length).replaceAll('+', ':');
  return idPattern.test(id) ? id : undefined;
}

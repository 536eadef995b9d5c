/** Finds the one thing that a person means, by the same rules for everything that has an id. */
import { HerkosError } from '../../lib/base/errors.js';

const prefixLengthMin = 3;

export interface Sort {
  /** `pod or container` */
  readonly what: string;
  readonly hasNames: boolean;
  /** The command that lists them. */
  readonly list: string;
}

/** True when `text` is the beginning of `id`, and long enough to mean it. */
export function beginsId(text: string, id: string): boolean {
  return text.length >= prefixLengthMin && id.startsWith(text);
}

/** The only one of `found`. @throws NotFound; InvalidArgument when there are several, or `text` is empty */
export function theOnly<T>(text: string, found: readonly T[], sort: Sort, shown: (one: T) => string): T {
  const hint = `'herkosctl ${sort.list}' shows what there is`;
  if (text === '')
    throw new HerkosError(
      'InvalidArgument',
      `${sort.hasNames ? 'a name or id' : 'an id'} is needed; ${hint}`,
    );
  const [first, second] = found;
  if (first === undefined) throw new HerkosError('NotFound', `${whyNone(text, sort)}; ${hint}`);
  if (second === undefined) return first;
  const all = found.map(shown).join(', ');
  throw new HerkosError('InvalidArgument', `'${text}' fits several: ${all}; write more of the id`);
}

/** Who writes two digits of an id that is there must not read that it is not. */
function whyNone(text: string, { what, hasNames }: Sort): string {
  if (text.length >= prefixLengthMin || !/^[0-9a-f]+$/.test(text)) return `there is no ${what} '${text}'`;
  const named = hasNames ? `no ${what} is named '${text}', and ` : `'${text}' is too short: `;
  return `${named}the beginning of an id needs at least ${String(prefixLengthMin)} digits`;
}

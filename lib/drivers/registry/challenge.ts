/** One challenge of a `WWW-Authenticate` header (RFC 9110, 11.6.1). */
export interface Challenge {
  /** Lower case: `bearer`, `basic`. */
  readonly scheme: string;
  /** Names in lower case. */
  readonly parameters: ReadonlyMap<string, string>;
}

const token = /[!#$%&'*+\-.^_`|~0-9A-Za-z]+/y;
const quoted = /"((?:[^"\\]|\\.)*)"/y;
/** Base64-like credentials of schemes such as Negotiate; read over. */
const token68 = /[A-Za-z0-9\-._~+/]+=*(?=\s*(?:,|$))/y;
const separators = /[\s,]*/y;
const equals = /\s*=\s*/y;
const challengesMax = 16;
const parametersMax = 32;

/**
 * Reads all challenges of one or several header lines. What cannot be read ends the reading: the
 * challenges before it still count. Linear in the length of the header.
 */
export function parseChallenges(lines: readonly string[]): Challenge[] {
  const challenges: Challenge[] = [];
  for (const line of lines) challenges.push(...parseLine(line));
  return challenges.slice(0, challengesMax);
}

function parseLine(line: string): Challenge[] {
  const found: { scheme: string; parameters: Map<string, string> }[] = [];
  let position = 0;
  const take = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = position;
    const match = pattern.exec(line);
    if (match !== null) position = pattern.lastIndex;
    return match;
  };
  while (position < line.length && found.length < challengesMax) {
    take(separators);
    const word = take(token);
    if (word === null) break;
    const current = found.at(-1);
    if (current !== undefined && take(equals) !== null) {
      const value = take(quoted)?.[1]?.replaceAll(/\\(.)/g, '$1') ?? take(token)?.[0];
      if (value === undefined) break;
      if (current.parameters.size < parametersMax) current.parameters.set(word[0].toLowerCase(), value);
    } else {
      found.push({ scheme: word[0].toLowerCase(), parameters: new Map() });
      const before = position;
      // `Negotiate abc==` has one bare word; `Bearer realm=…` has parameters, which the next turns read.
      if (/\s/.test(line[position] ?? '')) {
        take(separators);
        if (take(token68) === null) position = before;
      }
    }
  }
  return found;
}

/** Where a text stops being JSON. V8 tells it for some mistakes only, and not in the words of one version. */

const scalar =
  /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y;
const blank = /[ \t\r\n]*/y;

/** Offset of the first character that cannot be, or undefined when the text is JSON or nested too deeply to say. */
export function findJsonMistake(text: string): number | undefined {
  const scanner = new Scanner(text);
  try {
    scanner.value();
    return scanner.at === text.length ? undefined : scanner.at;
  } catch (error) {
    return error instanceof Mistake ? scanner.at : undefined;
  }
}

class Mistake extends Error {}

class Scanner {
  at = 0;

  constructor(readonly text: string) {}

  value(): void {
    this.#match(blank);
    if (this.#take('{'))
      this.#members('}', () => {
        if (this.text[this.at] !== '"') throw new Mistake();
        this.#scalar();
        this.#expect(':');
        this.value();
      });
    else if (this.#take('['))
      this.#members(']', () => {
        this.value();
      });
    else this.#scalar();
    this.#match(blank);
  }

  #members(end: string, member: () => void): void {
    if (this.#take(end)) return;
    do {
      this.#match(blank);
      member();
    } while (this.#take(','));
    this.#expect(end);
  }

  #scalar(): void {
    if (!this.#match(scalar)) throw new Mistake();
  }

  #expect(character: string): void {
    this.#match(blank);
    if (!this.#take(character)) throw new Mistake();
  }

  #take(character: string): boolean {
    if (this.text[this.at] !== character) return false;
    this.at += 1;
    this.#match(blank);
    return true;
  }

  #match(pattern: RegExp): boolean {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found === null) return false;
    this.at += found[0].length;
    return true;
  }
}

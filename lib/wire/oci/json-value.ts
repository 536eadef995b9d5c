import { HerkosError } from '../../base/errors.js';

/** A value inside an untrusted JSON document that knows its path, so that a refusal says where. */
export class JsonValue {
  readonly #value: unknown;
  readonly #path: string;

  private constructor(value: unknown, path: string) {
    this.#value = value;
    this.#path = path;
  }

  /** @throws HerkosError `FailedPrecondition` when the text is not JSON. */
  static parse(bytes: Uint8Array, what: string): JsonValue {
    let value: unknown;
    try {
      value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
    } catch (error) {
      throw malformed(`${what} is not JSON`, error);
    }
    return new JsonValue(value, what);
  }

  /** True when the member is missing or null: writers use both for "nothing". */
  get absent(): boolean {
    return this.#value === undefined || this.#value === null;
  }

  /** A member; members of what is no object are absent only when the object itself is. */
  get(name: string): JsonValue {
    const path = `${this.#path}.${name}`;
    if (this.absent) return new JsonValue(undefined, path);
    if (typeof this.#value !== 'object' || Array.isArray(this.#value))
      throw malformed(`${this.#path} is not an object`);
    const own = Object.getOwnPropertyDescriptor(this.#value, name);
    return new JsonValue(own?.value as unknown, path);
  }

  string(fallback?: string): string {
    if (this.absent && fallback !== undefined) return fallback;
    if (typeof this.#value !== 'string') throw malformed(`${this.#path} is not a string`);
    return this.#value;
  }

  /** A whole number from 0 to `max`. */
  count(max: number): number {
    const value = this.#value;
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0)
      throw malformed(`${this.#path} is not a size`);
    if (value > max) throw malformed(`${this.#path} is ${String(value)}; at most ${String(max)} is accepted`);
    return value;
  }

  /** The elements; none when absent. */
  list(lengthMax: number): JsonValue[] {
    if (this.absent) return [];
    if (!Array.isArray(this.#value)) throw malformed(`${this.#path} is not a list`);
    if (this.#value.length > lengthMax)
      throw malformed(
        `${this.#path} has ${String(this.#value.length)} entries; at most ${String(lengthMax)} are accepted`,
      );
    return this.#value.map(
      (value: unknown, index) => new JsonValue(value, `${this.#path}[${String(index)}]`),
    );
  }

  strings(lengthMax: number): string[] {
    return this.list(lengthMax).map((value) => value.string());
  }

  /** Names of the members; none when absent. */
  keys(lengthMax: number): string[] {
    if (this.absent) return [];
    if (typeof this.#value !== 'object' || this.#value === null || Array.isArray(this.#value))
      throw malformed(`${this.#path} is not an object`);
    const names = Object.keys(this.#value);
    if (names.length > lengthMax)
      throw malformed(
        `${this.#path} has ${String(names.length)} members; at most ${String(lengthMax)} are accepted`,
      );
    return names;
  }

  stringMap(lengthMax: number): Readonly<Record<string, string>> {
    // fromEntries defines own properties, so that a member called __proto__ stays data.
    return Object.fromEntries(this.keys(lengthMax).map((name) => [name, this.get(name).string('')]));
  }

  fail(why: string): never {
    throw malformed(`${this.#path} ${why}`);
  }
}

function malformed(message: string, cause?: unknown): HerkosError {
  return new HerkosError('FailedPrecondition', message, { reason: 'IMAGE_DOCUMENT_INVALID', cause });
}

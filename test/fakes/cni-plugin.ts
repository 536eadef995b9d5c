/** CNI plugins that do what a test says: small shell scripts that keep a record of every call. */
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

export interface PluginCall {
  readonly plugin: string;
  readonly command: string;
  readonly env: Readonly<Record<string, string>>;
  readonly input: Readonly<Record<string, unknown>>;
}

/** Shell lines by command; `*` is for the others. The input is in `$input`. */
export type PluginBehaviour = Readonly<Record<string, string>>;

const sampleResult = {
  cniVersion: '1.0.0',
  interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01', sandbox: '/run/netns/x' }],
  ips: [{ interface: 0, address: '10.1.0.5/16', gateway: '10.1.0.1' }],
  routes: [{ dst: '0.0.0.0/0' }],
};

export function printing(value: unknown): string {
  return `cat <<'END'\n${typeof value === 'string' ? value : JSON.stringify(value)}\nEND`;
}

/** Snippets for common ways to behave and to misbehave. */
export const behave = {
  ok: 'true',
  result: printing(sampleResult),
  /** What chained plugins do: hand on what came before. */
  passOn: `printf '%s' "$input" | sed -n 's/.*"prevResult":\\(.*\\)}$/\\1/p'`,
  error: (code: number, message: string) =>
    `${printing({ cniVersion: '1.0.0', code, msg: message, details: 'see the log' })}\nexit 1`,
  garbage: 'echo "panic: everything is lost" >&2; echo "<html>"; exit 3',
  garbageSuccess: 'echo "<html>not json"',
  huge: 'head -c 8000000 /dev/zero | tr "\\0" "x"',
  hang: 'exec sleep 1000',
  /** The child keeps the pipes open after the plugin itself was killed. */
  hangWithChild: 'sleep 1000 & wait',
} as const;

/** A directory of fake plugins with one record of all calls. */
export class FakePlugins {
  readonly binDir: string;
  readonly #record: string;

  private constructor(directory: string) {
    this.binDir = join(directory, 'bin');
    this.#record = join(directory, 'calls');
  }

  static async create(directory: string): Promise<FakePlugins> {
    const plugins = new FakePlugins(directory);
    await mkdir(plugins.binDir, { recursive: true });
    return plugins;
  }

  async add(name: string, behaviour: PluginBehaviour = {}): Promise<void> {
    const cases = Object.entries({ '*': behave.ok, ...behaviour })
      .sort(([a], [b]) => Number(a === '*') - Number(b === '*'))
      .map(([command, lines]) => `${command})\n${lines}\n;;`)
      .join('\n');
    const script = [
      '#!/bin/sh',
      'input=$(cat)',
      `{ env | grep ^CNI_; printf 'PLUGIN=%s\\nINPUT=%s\\n--\\n' '${name}' "$input"; } > "${this.#record}.$$"`,
      `cat "${this.#record}.$$" >> "${this.#record}"; rm "${this.#record}.$$"`,
      `case "$CNI_COMMAND" in\n${cases}\nesac`,
    ].join('\n');
    const path = join(this.binDir, name);
    await writeFile(path, `${script}\n`);
    await chmod(path, 0o755);
  }

  async calls(): Promise<PluginCall[]> {
    const text = await readFile(this.#record, 'utf8').catch(() => '');
    return text
      .split('\n--\n')
      .filter((part) => part !== '')
      .map((part) => {
        const env = Object.fromEntries(
          part
            .split('\n')
            .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
        ) as Record<string, string>;
        return {
          plugin: env['PLUGIN'] ?? '',
          command: env['CNI_COMMAND'] ?? '',
          env,
          input: JSON.parse(env['INPUT'] ?? '{}') as Record<string, unknown>,
        };
      });
  }

  /** `plugin COMMAND`, in order. */
  async sequence(): Promise<string[]> {
    return (await this.calls()).map(({ plugin, command }) => `${plugin} ${command}`);
  }
}

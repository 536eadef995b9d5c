/**
 * Network configuration lists (`*.conflist`) and single plugin configurations (`*.conf`, `*.json`),
 * as the CNI specification 0.3.1 to 1.1.0 and libcni read them.
 */
import type { JsonObject } from './json.js';
import { asObject, bad, booleanAt, objectsAt, parseJsonObject, stringAt } from './json.js';
import { isSupported, newestSupported, supportedVersions } from './version.js';

export interface PluginConfig {
  /** Name of the plugin's binary. */
  readonly type: string;
  /** Capabilities that the plugin takes through `runtimeConfig`, such as `portMappings`. */
  readonly capabilities: ReadonlySet<string>;
  /** The plugin's whole object, unknown keys included. */
  readonly raw: JsonObject;
}

export interface NetworkConfig {
  readonly cniVersion: string;
  readonly name: string;
  /** The configuration says that GC must not be called. */
  readonly disableGc: boolean;
  /** At least one. */
  readonly plugins: readonly PluginConfig[];
}

const pluginsMax = 32;
const namePattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$/;
// A type becomes a file name below the plugin directories.
const typePattern = /^[a-zA-Z0-9_][a-zA-Z0-9_.+-]{0,254}$/;

/**
 * Reads the text of one file; its name's ending decides between list and single configuration.
 * @throws HerkosError `InvalidArgument` that names the file and the place.
 */
export function parseNetworkConfig(text: string, fileName: string): NetworkConfig {
  const root = parseJsonObject(text, fileName);
  return fileName.endsWith('.conflist') ? fromList(root, fileName) : fromSingle(root, fileName);
}

/** The list as JSON text of its own, for a cache: `parseNetworkConfig(text, 'x.conflist')` reads it back. */
export function formatNetworkConfig(config: NetworkConfig): JsonObject {
  return {
    cniVersion: config.cniVersion,
    name: config.name,
    ...(config.disableGc ? { disableGC: true } : {}),
    plugins: config.plugins.map((plugin) => plugin.raw),
  };
}

/** True when a plugin of the chain takes `capability`. */
export function takesCapability(config: NetworkConfig, capability: string): boolean {
  return config.plugins.some((plugin) => plugin.capabilities.has(capability));
}

/** Reads a list from its parsed form, as a file or a cache holds it. */
export function fromList(root: JsonObject, what: string): NetworkConfig {
  const plugins = objectsAt(root, 'plugins', what, pluginsMax);
  if (plugins.length === 0) throw bad(`${what}: plugins must name at least one plugin`);
  return {
    cniVersion: versionOf(root, what),
    name: nameOf(root, what),
    disableGc: booleanAt(root, 'disableGC', what),
    plugins: plugins.map((plugin, index) => pluginFrom(plugin, `${what}: plugins[${String(index)}]`)),
  };
}

function fromSingle(root: JsonObject, what: string): NetworkConfig {
  if (root['plugins'] !== undefined)
    throw bad(`${what} is a list of plugins; let its name end with .conflist`);
  return {
    cniVersion: versionOf(root, what),
    name: nameOf(root, what),
    disableGc: false,
    plugins: [pluginFrom(root, what)],
  };
}

function pluginFrom(raw: JsonObject, what: string): PluginConfig {
  const type = stringAt(raw, 'type', what);
  if (type === undefined || type === '') throw bad(`${what}: type is missing`);
  if (!typePattern.test(type)) throw bad(`${what}: type '${type}' is not the name of a plugin`);
  const capabilities = new Set<string>();
  if (raw['capabilities'] !== undefined && raw['capabilities'] !== null) {
    const given = asObject(raw['capabilities'], `${what}: capabilities`);
    for (const key of Object.keys(given))
      if (booleanAt(given, key, `${what}: capabilities`)) capabilities.add(key);
  }
  return { type, capabilities, raw };
}

function nameOf(root: JsonObject, what: string): string {
  const name = stringAt(root, 'name', what);
  if (name === undefined || name === '') throw bad(`${what}: name is missing`);
  if (!namePattern.test(name))
    throw bad(`${what}: name '${name}' may only hold letters, digits, '_', '.' and '-'`);
  return name;
}

/** `cniVersions` (since 1.1) offers several; the newest one that is understood is taken. */
function versionOf(root: JsonObject, what: string): string {
  const offered = root['cniVersions'];
  const single = stringAt(root, 'cniVersion', what);
  if (offered !== undefined && offered !== null) {
    if (!Array.isArray(offered) || !offered.every((item) => typeof item === 'string'))
      throw bad(`${what}: cniVersions must be an array of strings`);
    const all = single === undefined ? offered : [...offered, single];
    const best = newestSupported(all);
    if (best === undefined) throw unsupported(all.join(', '), what);
    return best;
  }
  if (single === undefined) throw bad(`${what}: cniVersion is missing`);
  if (!isSupported(single)) throw unsupported(single, what);
  return single;
}

function unsupported(found: string, what: string): Error {
  return bad(`${what}: cniVersion ${found} is not supported; supported are ${supportedVersions.join(', ')}`);
}

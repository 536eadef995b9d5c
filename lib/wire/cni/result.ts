/**
 * What a plugin answers to ADD, in every version of the specification, brought to one form; and what
 * it answers when it fails.
 */
import type { Address } from '../../model/network.js';
import { parseCidr, parseIp } from './address.js';
import type { JsonObject } from './json.js';
import { asObject, bad, objectsAt, parseJsonObject, stringAt, uint32At } from './json.js';

export interface CniInterface {
  readonly name: string;
  readonly mac?: string;
  readonly mtu?: number;
  /** Path of the namespace it is in; undefined for one of the host. */
  readonly sandbox?: string;
}

export interface CniIp {
  readonly address: Address;
  readonly gateway?: string;
  /** Index into `interfaces`. */
  readonly interface?: number;
}

export interface CniRoute {
  readonly destination: Address;
  readonly gateway?: string;
  readonly mtu?: number;
  readonly advertisedMss?: number;
  readonly priority?: number;
  /** Kernel scope number; 253 is `link`. */
  readonly scope?: number;
  /** Routing table when it is not the main one. */
  readonly table?: number;
}

export interface CniResult {
  readonly interfaces: readonly CniInterface[];
  readonly ips: readonly CniIp[];
  readonly routes: readonly CniRoute[];
}

export interface CniErrorReport {
  readonly code: number;
  readonly message: string;
  readonly details: string;
}

const interfacesMax = 256;
const ipsMax = 64;
const routesMax = 1024;
const textCharsMax = 2048;

export const emptyResult: CniResult = { interfaces: [], ips: [], routes: [] };

/** @throws HerkosError `InvalidArgument` that names `what` and the place. */
export function parseResult(
  text: string,
  what: string,
): { readonly result: CniResult; readonly raw: JsonObject } {
  const raw = parseJsonObject(text, what);
  return { result: normaliseResult(raw, what), raw };
}

/** Brings a parsed result of any version to one form. */
export function normaliseResult(raw: JsonObject, what: string): CniResult {
  const interfaces = objectsAt(raw, 'interfaces', what, interfacesMax).map((item) =>
    readInterface(item, what),
  );
  // Up to 0.2.0 there is one `ip4` and one `ip6`, which carry the routes too.
  const legacy = ['ip4', 'ip6'].flatMap((key) =>
    raw[key] === undefined ? [] : [asObject(raw[key], `${what}: ${key}`)],
  );
  const ips = [
    ...objectsAt(raw, 'ips', what, ipsMax).map((item) => readIp(item, 'address', interfaces.length, what)),
    ...legacy.map((item) => readIp(item, 'ip', 0, what)),
  ];
  const routes = [
    ...objectsAt(raw, 'routes', what, routesMax),
    ...legacy.flatMap((item) => objectsAt(item, 'routes', what, routesMax)),
  ].map((item) => readRoute(item, what));
  return { interfaces, ips, routes };
}

/** The error object a plugin printed, or undefined when the text is not one. */
export function parseErrorReport(text: string): CniErrorReport | undefined {
  let raw: JsonObject;
  try {
    raw = parseJsonObject(text, 'error');
  } catch {
    return undefined;
  }
  const { code, msg, details } = raw;
  if (typeof code !== 'number' || typeof msg !== 'string') return undefined;
  return {
    code,
    message: printable(msg),
    details: typeof details === 'string' ? printable(details) : '',
  };
}

/** Bounded, on one line: plugins' words end in logs and in pod events. */
export function printable(text: string): string {
  return text
    .replaceAll(/[\u0000-\u001f\u007f]+/g, ' ')
    .trim()
    .slice(0, textCharsMax);
}

function readInterface(item: JsonObject, what: string): CniInterface {
  const name = stringAt(item, 'name', what);
  if (name === undefined || name === '') throw bad(`${what}: an interface has no name`);
  const mac = stringAt(item, 'mac', what);
  const mtu = uint32At(item, 'mtu', what);
  const sandbox = stringAt(item, 'sandbox', what);
  return {
    name,
    ...(mac === undefined || mac === '' ? {} : { mac }),
    ...(mtu === undefined || mtu === 0 ? {} : { mtu }),
    ...(sandbox === undefined || sandbox === '' ? {} : { sandbox }),
  };
}

function readIp(item: JsonObject, key: string, interfaces: number, what: string): CniIp {
  const address = stringAt(item, key, what);
  if (address === undefined) throw bad(`${what}: an entry of ips has no ${key}`);
  if (!address.includes('/')) throw bad(`${what}: address '${address}' has no prefix length`);
  const gateway = stringAt(item, 'gateway', what);
  const index = uint32At(item, 'interface', what);
  if (index !== undefined && index >= interfaces)
    throw bad(
      `${what}: address ${address} names interface ${String(index)}, but there are ${String(interfaces)}`,
    );
  return {
    address: parseCidr(address, what),
    ...(gateway === undefined || gateway === '' ? {} : { gateway: parseIp(gateway, what) }),
    ...(index === undefined ? {} : { interface: index }),
  };
}

function readRoute(item: JsonObject, what: string): CniRoute {
  const dst = stringAt(item, 'dst', what);
  if (dst === undefined) throw bad(`${what}: a route has no dst`);
  const gateway = stringAt(item, 'gw', what);
  const numbers = {
    mtu: uint32At(item, 'mtu', what),
    advertisedMss: uint32At(item, 'advmss', what),
    priority: uint32At(item, 'priority', what),
    scope: uint32At(item, 'scope', what),
    table: uint32At(item, 'table', what),
  };
  return {
    destination: parseCidr(dst, what),
    ...(gateway === undefined || gateway === '' ? {} : { gateway: parseIp(gateway, what) }),
    ...given(numbers),
  };
}

/** Leaves out what is undefined; 0 means "not set" for every number of a route except scope and table. */
function given(numbers: Readonly<Record<string, number | undefined>>): Record<string, number> {
  const out: Record<string, number> = {};
  for (const [key, value] of Object.entries(numbers))
    if (value !== undefined && (value !== 0 || key === 'scope')) out[key] = value;
  return out;
}

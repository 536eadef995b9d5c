/**
 * A seccomp profile that the node's administrator wrote: docker's JSON format, which is the OCI runtime's
 * plus conditions (`includes`, `excludes`). The conditions are decided here; what the guest gets is plain OCI.
 * Only the administrator and the kubelet name such files. Their content is never shown in an error, so a
 * wrong path tells nothing about the file behind it.
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';

import { HerkosError, isErrno, messageOf } from '../../base/errors.js';
import { MIB } from '../../base/units.js';
import type { OciSeccomp, OciSyscallArg, OciSyscallRule } from '../../wire/ocispec/types.js';

export const profileBytesMax = MIB;
const rulesMax = 4096;
const namesMax = 8192;

/** What conditions of a profile may ask. */
export interface SeccompFacts {
  readonly capabilities: readonly string[];
  /** Release of the guest's kernel, such as `6.1.0-40-amd64`. */
  readonly kernelRelease: string;
}

/** @throws InvalidArgument that names the path and the rule, never the content */
export async function readSeccompProfile(path: string, facts: SeccompFacts): Promise<OciSeccomp> {
  const text = await readBounded(path);
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    throw invalid(path, 'it is not JSON');
  }
  try {
    return convertSeccompProfile(document, facts);
  } catch (error) {
    throw invalid(path, messageOf(error));
  }
}

/** @throws Error with what is wrong with the document */
export function convertSeccompProfile(document: unknown, facts: SeccompFacts): OciSeccomp {
  const profile = object(document, 'the profile');
  const architectures = new Set(optionalStrings(profile['architectures'], 'architectures'));
  for (const entry of optionalArray(profile['archMap'], 'archMap')) {
    const map = object(entry, 'archMap');
    if (map['architecture'] !== 'SCMP_ARCH_X86_64') continue;
    architectures.add('SCMP_ARCH_X86_64');
    for (const sub of optionalStrings(map['subArchitectures'], 'subArchitectures')) architectures.add(sub);
  }
  if (profile['listenerPath'] !== undefined) throw new Error('a listener cannot be reached from inside a VM');
  const errno = optionalInteger(profile['defaultErrnoRet'], 'defaultErrnoRet');
  const flags = optionalStrings(profile['flags'], 'flags');
  const rules = optionalArray(profile['syscalls'], 'syscalls');
  if (rules.length > rulesMax) throw new Error(`it has more than ${String(rulesMax)} rules`);
  return {
    defaultAction: action(profile['defaultAction'], 'defaultAction'),
    ...(errno === undefined ? {} : { defaultErrnoRet: errno }),
    architectures: [...architectures],
    ...(flags.length === 0 ? {} : { flags }),
    syscalls: rules.flatMap((rule, index) => convertRule(rule, `rule ${String(index + 1)}`, facts)),
  };
}

function convertRule(value: unknown, where: string, facts: SeccompFacts): OciSyscallRule[] {
  const rule = object(value, where);
  if (!applies(rule, where, facts)) return [];
  const names = optionalStrings(rule['names'], `${where}: names`);
  const all = typeof rule['name'] === 'string' && rule['name'] !== '' ? [...names, rule['name']] : names;
  if (all.length === 0 || all.length > namesMax)
    throw new Error(`${where} names no system call, or too many`);
  const errnoRet = optionalInteger(rule['errnoRet'], `${where}: errnoRet`);
  const args = optionalArray(rule['args'], `${where}: args`).map((entry) => convertArg(entry, where));
  return [
    {
      names: all,
      action: action(rule['action'], where),
      ...(errnoRet === undefined ? {} : { errnoRet }),
      ...(args.length === 0 ? {} : { args }),
    },
  ];
}

function applies(rule: Record<string, unknown>, where: string, facts: SeccompFacts): boolean {
  const includes = rule['includes'] === undefined ? {} : object(rule['includes'] ?? {}, where);
  const excludes = rule['excludes'] === undefined ? {} : object(rule['excludes'] ?? {}, where);
  const has = (name: string): boolean => facts.capabilities.includes(name);
  const isOurs = (arch: string): boolean => ['amd64', 'x86', 'x32'].includes(arch);
  const includedArches = optionalStrings(includes['arches'], where);
  if (includedArches.length > 0 && !includedArches.some(isOurs)) return false;
  if (optionalStrings(excludes['arches'], where).some(isOurs)) return false;
  if (!optionalStrings(includes['caps'], where).every(has)) return false;
  if (optionalStrings(excludes['caps'], where).some(has)) return false;
  const atLeast = includes['minKernel'];
  if (typeof atLeast === 'string' && !isKernelAtLeast(facts.kernelRelease, atLeast)) return false;
  const below = excludes['minKernel'];
  return !(typeof below === 'string' && isKernelAtLeast(facts.kernelRelease, below));
}

/** Compares the first two numbers, as minKernel has only those. */
function isKernelAtLeast(release: string, wanted: string): boolean {
  const [major = 0, minor = 0] = release.split(/[.-]/).map(Number);
  const [wantedMajor = 0, wantedMinor = 0] = wanted.split('.').map(Number);
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}

function convertArg(value: unknown, where: string): OciSyscallArg {
  const arg = object(value, where);
  const op = arg['op'];
  if (typeof op !== 'string' || !/^SCMP_CMP_[A-Z_]{2,12}$/.test(op))
    throw new Error(`${where} has no valid comparison`);
  const index = optionalInteger(arg['index'], where) ?? 0;
  if (index > 5) throw new Error(`${where} names argument ${String(index)}; there are six, from 0`);
  const valueTwo = optionalInteger(arg['valueTwo'], where);
  return {
    index,
    value: optionalInteger(arg['value'], where) ?? 0,
    ...(valueTwo === undefined ? {} : { valueTwo }),
    op,
  };
}

function action(value: unknown, where: string): string {
  if (typeof value !== 'string' || !/^SCMP_ACT_[A-Z_]{3,16}$/.test(value))
    throw new Error(`${where} has no valid action`);
  if (value === 'SCMP_ACT_NOTIFY') throw new Error(`${where}: a listener cannot be reached from inside a VM`);
  return value;
}

async function readBounded(path: string): Promise<string> {
  try {
    // O_NONBLOCK: a FIFO must not hold the daemon.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const status = await file.stat();
      if (!status.isFile()) throw new Error('it is not a regular file');
      if (status.size > profileBytesMax)
        throw new Error(`it is longer than ${String(profileBytesMax)} bytes`);
      return await file.readFile('utf8');
    } finally {
      await file.close();
    }
  } catch (error) {
    throw invalid(path, isErrno(error, 'ENOENT') ? 'there is no such file' : messageOf(error));
  }
}

function invalid(path: string, why: string): HerkosError {
  return new HerkosError('InvalidArgument', `cannot use the seccomp profile ${path}: ${why}`);
}

function object(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new Error(`${where} is not an object`);
  return value as Record<string, unknown>;
}

function optionalArray(value: unknown, where: string): unknown[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw new Error(`${where} is not a list`);
  return value as unknown[];
}

function optionalStrings(value: unknown, where: string): string[] {
  const list = optionalArray(value, where);
  if (list.some((entry) => typeof entry !== 'string' || entry.length > 64))
    throw new Error(`${where} is not a list of names`);
  return list as string[];
}

function optionalInteger(value: unknown, where: string): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0)
    throw new Error(`${where} has a number that is not a whole one of at least 0`);
  return value;
}

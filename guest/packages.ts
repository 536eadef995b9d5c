/**
 * Debian packages as sources of files: which version, fetched and checked by apt, unpacked by dpkg-deb.
 * Nothing is installed on the host.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { underDeadline } from '../lib/base/context.js';
import type { Context } from '../lib/base/context.js';
import { HerkosError, isErrno, messageOf } from '../lib/base/errors.js';
import type { Exec } from '../lib/base/exec.js';

const metapackage = 'linux-image-amd64';
/** The OCI runtime and everything its libraries need. */
const runtimePackages = [
  'crun',
  'libc6',
  'libcap2',
  'libgcrypt20',
  'libgpg-error0',
  'liblz4-1',
  'liblzma5',
  'libseccomp2',
  'libsystemd0',
  'libyajl2',
  'libzstd1',
];

/** Nobody can put a file there. */
const emptyDirectory = '/sys';
const aptTimeoutMs = 30_000;
const fetchTimeoutMs = 300_000;
const unpackTimeoutMs = 120_000;

export interface Package {
  readonly name: string;
  readonly version: string;
  readonly fileName: string;
  readonly sha256: string;
}

export interface GuestPackages {
  readonly kernel: Package;
  readonly runtime: readonly Package[];
}

/** What apt would fetch now. @throws FailedPrecondition when apt's lists are missing */
export async function resolvePackages(ctx: Context, exec: Exec): Promise<GuestPackages> {
  return underDeadline(ctx, aptTimeoutMs, 'asking apt for the packages', async (step) => {
    const shown = await apt(step, exec, 'apt-cache', ['show', '--no-all-versions', metapackage]);
    const kernelName = /^Depends: (linux-image-[a-z0-9.+-]+)/m.exec(shown)?.[1];
    if (kernelName === undefined)
      throw new HerkosError('FailedPrecondition', `apt does not say which kernel ${metapackage} stands for`);
    const names = [kernelName, ...runtimePackages];
    // Of a package that is in the directory already it says nothing.
    const uris = await apt(step, exec, 'apt-get', ['download', '--print-uris', ...names], emptyDirectory);
    const packages = uris.split('\n').filter(Boolean).map(parseUriLine);
    const find = (name: string): Package => {
      const found = packages.find((one) => one.name === name);
      if (found === undefined) throw new HerkosError('FailedPrecondition', `apt knows no package ${name}`);
      return found;
    };
    return { kernel: find(kernelName), runtime: runtimePackages.map(find) };
  });
}

/** `'uri' name_version_arch.deb size SHA256:digest`; a colon in a version is written `%3a`. */
export function parseUriLine(line: string): Package {
  const match = /^'[^']+' (([a-z0-9.+-]+)_([^_ /]+)_[a-z0-9]+\.deb) \d+ SHA256:([0-9a-f]{64})$/.exec(line);
  const [, fileName, name, version, sha256] = match ?? [];
  if (fileName === undefined || name === undefined || version === undefined || sha256 === undefined)
    throw new HerkosError(
      'FailedPrecondition',
      `apt printed a line that is not understood: ${line.slice(0, 200)}`,
    );
  return { name, version: version.replaceAll('%3a', ':'), fileName, sha256 };
}

/** Fetches what is not in `directory` yet, with the right digest; removes packages that are not wanted any more. */
export async function fetchPackages(
  ctx: Context,
  exec: Exec,
  packages: readonly Package[],
  directory: string,
): Promise<void> {
  await mkdir(directory, { recursive: true });
  const wanted = new Set(packages.map(({ fileName }) => fileName));
  for (const name of await readdir(directory))
    if (name.endsWith('.deb') && !wanted.has(name)) await rm(join(directory, name));
  const missing: Package[] = [];
  for (const one of packages) if (!(await isWhole(directory, one))) missing.push(one);
  if (missing.length === 0) return;
  await underDeadline(ctx, fetchTimeoutMs, 'fetching the packages', async (step) => {
    const names = missing.map(({ name, version }) => `${name}=${version}`);
    await apt(
      step,
      exec,
      'apt-get',
      ['-qq', '-o', 'APT::Sandbox::User=root', 'download', ...names],
      directory,
    );
  });
  for (const one of missing)
    if (!(await isWhole(directory, one)))
      throw new HerkosError(
        'DataLoss',
        `${one.fileName} is not what apt's lists describe; run apt-get update`,
      );
}

async function isWhole(directory: string, one: Package): Promise<boolean> {
  try {
    return (await sha256File(join(directory, one.fileName))) === one.sha256;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false;
    throw error;
  }
}

export async function sha256File(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const part of createReadStream(path)) hash.update(part as Buffer);
  return hash.digest('hex');
}

/** Unpacks packages over each other into `target`, which appears only when it is complete. */
export async function unpackPackages(
  ctx: Context,
  exec: Exec,
  packages: readonly Package[],
  directory: string,
  target: string,
): Promise<void> {
  const temporary = `${target}.tmp`;
  await rm(temporary, { recursive: true, force: true });
  await mkdir(temporary, { recursive: true });
  await underDeadline(ctx, unpackTimeoutMs, 'unpacking the packages', async (step) => {
    for (const { fileName } of packages)
      await exec.run(step, 'dpkg-deb', ['--extract', join(directory, fileName), temporary]);
  });
  await rm(target, { recursive: true, force: true });
  await rename(temporary, target);
}

async function apt(
  ctx: Context,
  exec: Exec,
  program: string,
  args: readonly string[],
  cwd?: string,
): Promise<string> {
  try {
    const env = { PATH: process.env['PATH'] ?? '', LC_ALL: 'C' };
    const { stdout } = await exec.run(ctx, program, args, cwd === undefined ? { env } : { env, cwd });
    return stdout.toString('utf8');
  } catch (error) {
    throw new HerkosError('FailedPrecondition', `${messageOf(error)}; run apt-get update and try again`, {
      cause: error,
    });
  }
}

/** What the doctor looks at, behind one small interface so that tests can show it a sick node. */
import { constants } from 'node:fs';
import { access, readFile, readdir, statfs } from 'node:fs/promises';
import { release } from 'node:os';
import { delimiter, dirname, join } from 'node:path';

import type { Context } from '../../lib/base/context.js';
import { underDeadline } from '../../lib/base/context.js';
import { messageOf } from '../../lib/base/errors.js';
import { systemExec } from '../../lib/base/exec.js';

const programTimeoutMs = 5_000;

export interface DoctorHost {
  readonly kernelRelease: string;
  /** Undefined when it cannot be read. */
  read(path: string): Promise<string | undefined>;
  /** Names in a directory; none when it is not there. */
  list(path: string): Promise<readonly string[]>;
  mayReadWrite(path: string): Promise<boolean>;
  /** Full path of a program. */
  which(program: string): Promise<string | undefined>;
  /** First line that a program prints, or why it does not. */
  firstLine(program: string, args: readonly string[]): Promise<string>;
  /** Space of the file system that would hold `path`. */
  space(path: string): Promise<{ readonly freeBytes: number; readonly totalBytes: number }>;
}

export function systemHost(ctx: Context): DoctorHost {
  return {
    kernelRelease: release(),
    read: async (path) => readFile(path, 'utf8').catch(() => undefined),
    list: async (path) => readdir(path).catch(() => []),
    mayReadWrite: async (path) => can(path, constants.R_OK | constants.W_OK),
    which,
    firstLine: async (program, args) => firstLine(ctx, program, args),
    space,
  };
}

async function can(path: string, mode: number): Promise<boolean> {
  return access(path, mode).then(
    () => true,
    () => false,
  );
}

/** Administrators' programs lie in sbin, which the path of a plain user leaves out. */
async function which(program: string): Promise<string | undefined> {
  if (program.includes('/')) return (await can(program, constants.X_OK)) ? program : undefined;
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  for (const folder of folders.filter((name) => name !== '')) {
    const path = join(folder, program);
    if (await can(path, constants.X_OK)) return path;
  }
  return undefined;
}

async function firstLine(ctx: Context, program: string, args: readonly string[]): Promise<string> {
  try {
    const { stdout, stderr } = await underDeadline(ctx, programTimeoutMs, program, (bounded) =>
      systemExec.run(bounded, program, args),
    );
    return (stdout.toString('utf8').trim() || stderr.toString('utf8').trim()).split('\n')[0] ?? '';
  } catch (error) {
    return messageOf(error);
  }
}

/** A directory that is to be made lies on the file system of its nearest parent. */
async function space(path: string): Promise<{ freeBytes: number; totalBytes: number }> {
  for (let folder = path; ; folder = dirname(folder)) {
    try {
      const { bavail, blocks, bsize } = await statfs(folder);
      return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
    } catch (error) {
      if (folder === dirname(folder)) throw error;
    }
  }
}

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

import type { Context } from '../../base/context.js';
import { background, underDeadline } from '../../base/context.js';
import { HerkosError, isErrno } from '../../base/errors.js';
import type { Exec } from '../../base/exec.js';
import { withRollback } from '../../base/rollback.js';
import type { NetnsFactory } from '../../vm/ports.js';

/** iproute2's place: `ip netns` shows and deletes what is there. */
export const netnsDirectory = '/run/netns';
export const tapName = 'tap0';

const stepTimeoutMs = 10_000;
const uidMax = 0xffff_fffe;

/**
 * Network namespaces of one instance: `<instance>-<letters and digits>`, each with a tap that is up
 * and belongs to the VM's uid. A namespace takes its tap along when it goes. `herkos-host netns` makes both at once,
 * and keeps the namespace's own stack silent: the guest speaks there.
 */
export class CniNetnsFactory implements NetnsFactory {
  readonly #exec: Exec;
  readonly #hostHelper: string;
  readonly #namePattern: RegExp;
  readonly #instance: string;

  /**
   * @param instance letters and digits only, so that no instance's names look like another's
   * @param hostHelper the program `herkos-host`
   */
  constructor(exec: Exec, instance: string, hostHelper: string) {
    if (!/^[a-z0-9]{1,32}$/.test(instance))
      throw new HerkosError('InvalidArgument', `instance '${instance}' may only hold a-z and 0-9`);
    this.#exec = exec;
    this.#hostHelper = hostHelper;
    this.#instance = instance;
    this.#namePattern = new RegExp(`^${instance}-[a-z0-9]{1,64}$`);
  }

  async create(
    ctx: Context,
    name: string,
    uid: number,
  ): Promise<{ readonly path: string; readonly tap: string }> {
    this.#check(name);
    if (!Number.isInteger(uid) || uid < 0 || uid > uidMax)
      throw new HerkosError('InvalidArgument', `${String(uid)} is not a user id`);
    const path = join(netnsDirectory, name);
    return withRollback(async (undo) => {
      undo.push(`delete namespace ${name}`, () => this.deleteGone(background(), name));
      const options = ['--directory', netnsDirectory, '--name', name, '--tap', tapName, '--uid', String(uid)];
      await underDeadline(ctx, stepTimeoutMs, `creating the namespace ${name}`, (step) =>
        this.#exec.run(step, this.#hostHelper, ['netns', ...options]),
      );
      return { path, tap: tapName };
    });
  }

  async deleteGone(ctx: Context, name: string): Promise<void> {
    this.#check(name);
    await underDeadline(ctx, stepTimeoutMs, `deleting the namespace ${name}`, async (step) => {
      const { exitCode, stderr } = await this.#exec.run(step, 'ip', ['netns', 'delete', name], {
        okExitCodes: [0, 1],
      });
      const said = stderr.toString('utf8').trim();
      if (exitCode !== 0 && !said.includes('No such file or directory'))
        throw new HerkosError('Internal', `cannot delete the namespace ${name}: ${said}`);
    });
  }

  async list(): Promise<string[]> {
    try {
      return (await readdir(netnsDirectory)).filter((name) => this.#namePattern.test(name));
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return [];
      throw error;
    }
  }

  #check(name: string): void {
    if (!this.#namePattern.test(name))
      throw new HerkosError(
        'InvalidArgument',
        `'${name}' is not a namespace of this instance; names are ${this.#instance}-<a-z, 0-9>`,
      );
  }
}

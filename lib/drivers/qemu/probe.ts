import { mkdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { z } from 'zod';

import { writeFileAtomic } from '../../base/atomic-file.js';
import type { Context } from '../../base/context.js';
import { abortable, background } from '../../base/context.js';
import { HerkosError, messageOf } from '../../base/errors.js';
import type { Exec } from '../../base/exec.js';
import type { Logger } from '../../base/logger.js';
import { once } from '../../base/once.js';
import type { AcceleratorVerdict } from '../../vm/ports.js';
import type { KvmProof, KvmProver } from './kvm-proof.js';
import type { QemuSettings } from './settings.js';

const kvmDevice = '/dev/kvm';
const bootIdFile = '/proc/sys/kernel/random/boot_id';

/** A verdict holds for this boot of the host, this guest and this QEMU. */
const rememberedSchema = z.strictObject({
  schemaVersion: z.literal(1),
  bootId: z.string(),
  guest: z.string(),
  qemu: z.string(),
  works: z.boolean(),
  detail: z.string(),
});
type Remembered = z.infer<typeof rememberedSchema>;
type Outcome = Pick<Remembered, 'works' | 'detail'>;

export interface AcceleratorProbeParts {
  readonly settings: QemuSettings;
  readonly exec: Exec;
  readonly logger: Logger;
  readonly prover: Pick<KvmProver, 'boot'>;
  /** Another one than the host's, for tests. */
  readonly device?: string;
}

/**
 * Decides between KVM and TCG. The presence of /dev/kvm proves nothing: nested and paravirtual KVMs
 * open it and then cannot run a stock kernel. So our own guest is booted with it once.
 */
export class AcceleratorProbe {
  readonly #parts: AcceleratorProbeParts;
  readonly #settings: QemuSettings;
  readonly #decideOnce = once(() => this.#decide(background()));

  constructor(parts: AcceleratorProbeParts) {
    this.#parts = parts;
    this.#settings = parts.settings;
  }

  /**
   * Proven once; every VM asks, and the proof goes on when one of them stops asking.
   * @throws HerkosError `FailedPrecondition` when the configuration demands KVM and it does not work
   */
  async verdict(ctx: Context): Promise<AcceleratorVerdict> {
    return abortable(ctx, this.#decideOnce());
  }

  async #decide(ctx: Context): Promise<AcceleratorVerdict> {
    if (this.#settings.accel === 'tcg')
      return { accelerator: 'tcg', why: 'the configuration says accel = "tcg"' };
    const { works, detail } = await this.#kvm(ctx);
    if (works) return { accelerator: 'kvm', why: detail };
    if (this.#settings.accel === 'kvm')
      throw new HerkosError(
        'FailedPrecondition',
        `the configuration says accel = "kvm", but ${detail}; enable hardware virtualisation or set accel = "auto"`,
        { reason: 'KVM_UNUSABLE' },
      );
    return {
      accelerator: 'tcg',
      why: `${detail}; VMs run without hardware acceleration, several times slower. Enable (nested) virtualisation on this machine to change that`,
    };
  }

  async #kvm(ctx: Context): Promise<Outcome> {
    const { device = kvmDevice } = this.#parts;
    const present = await stat(device).catch(() => undefined);
    if (present === undefined) return { works: false, detail: `there is no ${device}` };
    const key = {
      bootId: (await readFile(bootIdFile, 'utf8')).trim(),
      guest: this.#settings.guest.digest,
      qemu: await this.#qemuVersion(ctx),
    };
    const remembered = await this.#recall();
    if (remembered?.bootId === key.bootId && remembered.guest === key.guest && remembered.qemu === key.qemu)
      return remembered;
    const proof = await this.#prove(ctx);
    const outcome = outcomeOf(proof);
    if (proof.kind === 'unclear')
      this.#parts.logger.warn('KVM is not used; whether it works is proven again at the next start', {
        why: proof.why,
      });
    else await this.#remember({ schemaVersion: 1, ...key, ...outcome });
    return outcome;
  }

  /** A host that is busy may keep a guest silent; hardly twice. */
  async #prove(ctx: Context): Promise<KvmProof> {
    const { logger, prover } = this.#parts;
    logger.info('proving KVM by booting the guest once');
    const first = await prover.boot(ctx);
    if (first.kind !== 'silent') return first;
    logger.info('nothing was heard of the guest; booting it once more', { why: first.why });
    return prover.boot(ctx);
  }

  async #qemuVersion(ctx: Context): Promise<string> {
    const { stdout } = await this.#parts.exec.run(ctx, this.#settings.binary, ['--version']);
    return stdout.toString('utf8').split('\n')[0] ?? '';
  }

  get #memoryPath(): string {
    return join(this.#settings.stateDir, 'accelerator.json');
  }

  /** One that cannot be written costs the next start one more boot. */
  async #remember(memory: Remembered): Promise<void> {
    try {
      await mkdir(this.#settings.stateDir, { recursive: true, mode: 0o700 });
      await writeFileAtomic(this.#memoryPath, `${JSON.stringify(memory, null, 2)}\n`);
    } catch (error) {
      this.#parts.logger.warn('what is known of KVM cannot be kept', { error: messageOf(error) });
    }
  }

  /** One that cannot be read costs one more boot. */
  async #recall(): Promise<Remembered | undefined> {
    try {
      return rememberedSchema.parse(JSON.parse(await readFile(this.#memoryPath, 'utf8')));
    } catch {
      return undefined;
    }
  }
}

function outcomeOf(proof: KvmProof): Outcome {
  switch (proof.kind) {
    case 'boots':
      return { works: true, detail: 'the guest boots with KVM' };
    case 'refused':
    case 'silent':
      return { works: false, detail: `the guest does not boot with KVM (${proof.why})` };
    case 'unclear':
      return { works: false, detail: `it could not be proven that KVM works (${proof.why})` };
  }
}

import { mkdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { z } from 'zod';

import { writeFileAtomic } from '../../base/atomic-file.js';
import type { Context } from '../../base/context.js';
import { abortable, background, throwIfDone, underDeadline } from '../../base/context.js';
import { HerkosError, messageOf } from '../../base/errors.js';
import type { Exec, Launcher } from '../../base/exec.js';
import { newId } from '../../base/ids.js';
import type { Logger } from '../../base/logger.js';
import type { VmShape } from '../../model/vm.js';
import type { AcceleratorVerdict } from '../../vm/ports.js';
import { agentPortId, commandLine, processName } from './command-line.js';
import { JailDevices } from './jail.js';
import { rootBytes } from './guest-files.js';
import { launch } from './launch.js';
import type { HypervisorProcess } from './process.js';
import type { QmpSession } from './qmp-session.js';
import { RunDirectory } from './run-dir.js';
import type { QemuSettings } from './settings.js';

/** With working KVM our guest is up in about a second; a broken one hangs for ever. */
const kvmBootTimeoutMs = 20_000;
const killTimeoutMs = 10_000;
const probeShape: VmShape = { vcpus: 1, memoryMib: 256 };
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

/**
 * Decides between KVM and TCG. The presence of /dev/kvm proves nothing: nested and paravirtual KVMs
 * open it and then cannot run a stock kernel. So our own guest is booted with it once.
 */
export class AcceleratorProbe {
  readonly #settings: QemuSettings;
  readonly #exec: Exec & Launcher;
  readonly #logger: Logger;
  #verdict: Promise<AcceleratorVerdict> | undefined;
  #provingId: string | undefined;

  constructor(settings: QemuSettings, exec: Exec & Launcher, logger: Logger) {
    this.#settings = settings;
    this.#exec = exec;
    this.#logger = logger;
  }

  /** The VM that is a proof just now: it belongs to no sandbox, and is no leftover either. */
  get provingId(): string | undefined {
    return this.#provingId;
  }

  /**
   * Proven once; every VM asks, and the proof goes on when one of them stops asking.
   * @throws HerkosError `FailedPrecondition` when the configuration demands KVM and it does not work
   */
  async verdict(ctx: Context): Promise<AcceleratorVerdict> {
    this.#verdict ??= this.#decide(background()).catch((error: unknown) => {
      this.#verdict = undefined;
      throw error;
    });
    return abortable(ctx, this.#verdict);
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

  async #kvm(ctx: Context): Promise<{ readonly works: boolean; readonly detail: string }> {
    const present = await stat(kvmDevice).catch(() => undefined);
    if (present === undefined) return { works: false, detail: `there is no ${kvmDevice}` };
    const key = {
      bootId: (await readFile(bootIdFile, 'utf8')).trim(),
      guest: this.#settings.guest.digest,
      qemu: await this.#qemuVersion(ctx),
    };
    const remembered = await this.#recall();
    if (remembered?.bootId === key.bootId && remembered.guest === key.guest && remembered.qemu === key.qemu)
      return remembered;
    const outcome = await this.#bootWithKvm(ctx);
    await mkdir(this.#settings.stateDir, { recursive: true, mode: 0o700 });
    const memory: Remembered = { schemaVersion: 1, ...key, ...outcome };
    await writeFileAtomic(this.#memoryPath, `${JSON.stringify(memory, null, 2)}\n`);
    return outcome;
  }

  async #bootWithKvm(ctx: Context): Promise<{ readonly works: boolean; readonly detail: string }> {
    this.#logger.info('proving KVM by booting the guest once');
    const id = newId();
    this.#provingId = id;
    const runDir = new RunDirectory(this.#settings.runDir);
    let process: HypervisorProcess | undefined;
    let session: QmpSession | undefined;
    try {
      const started = await this.#launch(ctx, id, runDir, (early) => {
        process = early;
      });
      session = started.session;
      await underDeadline(ctx, kvmBootTimeoutMs, 'booting the guest with KVM', (step) =>
        guestUp(step, started.session, started.process),
      );
      return { works: true, detail: 'the guest boots with KVM' };
    } catch (error) {
      throwIfDone(ctx);
      const notOurs = error instanceof HerkosError && error.reason === 'PROBE_INTERRUPTED';
      if (notOurs) throw error;
      return { works: false, detail: `the guest does not boot with KVM (${messageOf(error)})` };
    } finally {
      session?.destroy();
      await this.#end(process);
      await runDir.removeGone(id);
      this.#provingId = undefined;
    }
  }

  async #launch(
    ctx: Context,
    id: string,
    runDir: RunDirectory,
    onStarted: (process: HypervisorProcess) => void,
  ): Promise<{ readonly process: HypervisorProcess; readonly session: QmpSession }> {
    const settings = this.#settings;
    const devices = new JailDevices(this.#exec, settings.runDir, settings.sharedGid);
    await Promise.all([runDir.prepare(), devices.ensure(ctx)]);
    // The first uid after the range: no VM has it.
    const uid = settings.uidFirst + settings.uidCount;
    const paths = await runDir.create(id, uid);
    const launched = await launch(ctx, {
      launcher: this.#exec,
      hostHelper: settings.hostHelper,
      paths,
      onStarted,
      jail: {
        uid,
        groups: [settings.sharedGid],
        // The guest is our own and has no NIC: it needs no namespace.
        netnsPath: '/proc/self/ns/net',
        procsFiles: [],
        hugePages: true,
        feignHoles: false,
        deviceDirectory: devices.directory,
        program: settings.binary,
        args: commandLine(settings, {
          processName: processName(settings.instance, id),
          shape: probeShape,
          accelerator: 'kvm',
          guest: settings.guest,
          guestRootBytes: await rootBytes(settings.guest),
          paths,
          memory: { kind: 'own' },
        }),
      },
    });
    await runDir.seal(id);
    return launched;
  }

  async #end(process: HypervisorProcess | undefined): Promise<void> {
    if (process === undefined) return;
    await underDeadline(background(), killTimeoutMs, 'ending the proof of KVM', (ctx) => process.kill(ctx));
  }

  async #qemuVersion(ctx: Context): Promise<string> {
    const { stdout } = await this.#exec.run(ctx, this.#settings.binary, ['--version']);
    return stdout.toString('utf8').split('\n')[0] ?? '';
  }

  get #memoryPath(): string {
    return join(this.#settings.stateDir, 'accelerator.json');
  }

  /** A memory that cannot be read costs one more boot. */
  async #recall(): Promise<Remembered | undefined> {
    try {
      return rememberedSchema.parse(JSON.parse(await readFile(this.#memoryPath, 'utf8')));
    } catch {
      return undefined;
    }
  }
}

/** Lets the guest run; resolves when its agent has opened its port, which only a whole boot can do. */
async function guestUp(ctx: Context, session: QmpSession, process: HypervisorProcess): Promise<void> {
  const opened = new Promise<void>((resolve) => {
    session.onEvent(({ name, data }) => {
      if (name === 'VSERPORT_CHANGE' && data['id'] === agentPortId && data['open'] === true) resolve();
    });
  });
  await session.execute(ctx, 'cont');
  const died = process.exited.then(({ signal, lastWords }) => {
    if (signal === 'SIGKILL')
      throw new HerkosError('Aborted', 'somebody killed the proof of KVM', { reason: 'PROBE_INTERRUPTED' });
    throw new HerkosError('Internal', `QEMU ended: ${lastWords}`);
  });
  await abortable(ctx, Promise.race([opened, died]));
}

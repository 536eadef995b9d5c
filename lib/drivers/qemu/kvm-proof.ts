import type { Context } from '../../base/context.js';
import { abortable, background, throwIfDone, underDeadline } from '../../base/context.js';
import { HerkosError, classOf, messageOf } from '../../base/errors.js';
import type { Exec, Launcher } from '../../base/exec.js';
import { newId } from '../../base/ids.js';
import type { VmExit, VmShape } from '../../model/vm.js';
import { agentPortId, commandLine, processName } from './command-line.js';
import { rootBytes } from './guest-files.js';
import { JailDevices } from './jail.js';
import { launch } from './launch.js';
import type { Launched } from './launch.js';
import type { HypervisorProcess } from './process.js';
import type { QmpSession } from './qmp-session.js';
import { RunDirectory } from './run-dir.js';
import type { QemuSettings } from './settings.js';

/** With working KVM our guest is up in about a second; a broken one hangs for ever. */
const bootTimeoutMs = 20_000;
const endTimeoutMs = 2_000;
const killTimeoutMs = 10_000;
const shape: VmShape = { vcpus: 1, memoryMib: 256 };

/** What came of a boot with KVM. */
export type KvmProof =
  | { readonly kind: 'boots' }
  /** QEMU ended by itself. */
  | { readonly kind: 'refused'; readonly why: string }
  /** QEMU runs, and nothing was heard of the guest. */
  | { readonly kind: 'silent'; readonly why: string }
  /** Something failed that says nothing about KVM, and may not fail the next time. */
  | { readonly kind: 'unclear'; readonly why: string };

/** Boots our own guest with KVM. */
export class KvmProver {
  readonly #settings: QemuSettings;
  readonly #exec: Exec & Launcher;
  #provingId: string | undefined;

  constructor(settings: QemuSettings, exec: Exec & Launcher) {
    this.#settings = settings;
    this.#exec = exec;
  }

  /** The VM that is a proof just now: it belongs to no sandbox, and is no leftover either. */
  get provingId(): string | undefined {
    return this.#provingId;
  }

  /** @throws HerkosError `Aborted` when somebody killed the guest */
  async boot(ctx: Context): Promise<KvmProof> {
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
      await underDeadline(ctx, bootTimeoutMs, 'booting the guest with KVM', (step) =>
        guestUp(step, started.session, started.process),
      );
      return { kind: 'boots' };
    } catch (error) {
      throwIfDone(ctx);
      if (error instanceof HerkosError && error.reason === 'PROBE_INTERRUPTED') throw error;
      return judge(error, await endOf(process, error), session !== undefined);
    } finally {
      session?.destroy();
      await end(process);
      await runDir.removeGone(id);
      this.#provingId = undefined;
    }
  }

  async #launch(
    ctx: Context,
    id: string,
    runDir: RunDirectory,
    onStarted: (process: HypervisorProcess) => void,
  ): Promise<Launched> {
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
          shape,
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
}

/**
 * What a boot that failed says about KVM.
 * @param exit - undefined while the process runs, or there was none
 * @param hasAnswered - whether QEMU's monitor did
 */
export function judge(error: unknown, exit: VmExit | undefined, hasAnswered: boolean): KvmProof {
  const why = messageOf(error);
  if (exit === undefined) {
    const isSilent = hasAnswered && classOf(error) === 'DeadlineExceeded';
    return { kind: isSilent ? 'silent' : 'unclear', why };
  }
  const { exitCode, signal, lastWords } = exit;
  const endedByItself = signal === undefined ? exitCode !== undefined : signal !== 'SIGKILL';
  // QEMU may also be short of something before it comes to KVM, and the jail before it comes to QEMU.
  const isAboutKvm = hasAnswered || (/kvm/i.test(lastWords) && !jailWords.test(lastWords));
  return { kind: endedByItself && isAboutKvm ? 'refused' : 'unclear', why };
}

/** How `herkos-host` begins what it says. */
const jailWords = /^herkos-host: /m;

/** How the process has ended, if it has; one whose monitor is gone is about to. */
async function endOf(process: HypervisorProcess | undefined, error: unknown): Promise<VmExit | undefined> {
  if (process === undefined) return undefined;
  if (classOf(error) !== 'Unavailable' && (await process.isAlive())) return undefined;
  const gone = underDeadline(background(), endTimeoutMs, 'the end of QEMU', (ctx) => process.awaitGone(ctx));
  return gone.then(
    () => process.exited,
    () => undefined,
  );
}

async function end(process: HypervisorProcess | undefined): Promise<void> {
  if (process === undefined) return;
  await underDeadline(background(), killTimeoutMs, 'ending the proof of KVM', (ctx) => process.kill(ctx));
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

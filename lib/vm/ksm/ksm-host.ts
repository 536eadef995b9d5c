import { availableParallelism } from 'node:os';
import { join } from 'node:path';

import { z } from 'zod';

import { once } from '../../base/once.js';
import type { KsmFs } from './ksm-fs.js';
import type { ScanRate } from './throttle.js';
import { parsePressure, pressureOfLoad } from './throttle.js';

/** Kernel documentation, admin-guide/mm/ksm. */
const directory = '/sys/kernel/mm/ksm';
/** USER_HZ is 100 on every architecture that runs QEMU's q35. */
const tickMs = 10;
/** ksmd is a child of kthreadd. */
const kthreaddPid = '2';

/** What the scanner changes. Since 6.8 the kernel may choose the speed itself, by an advisor. */
const settingsSchema = z.object({
  run: z.string(),
  pages_to_scan: z.string(),
  sleep_millisecs: z.string(),
  advisor_mode: z.string().optional(),
});
export type KsmValues = z.infer<typeof settingsSchema>;

const savedSchema = z.object({ schemaVersion: z.literal(1), bootId: z.string(), values: settingsSchema });

/** What the kernel counts, of the whole host. */
export interface KsmCounters {
  /** Pages that are kept once for several. */
  readonly pagesShared: number;
  /** Pages that were given back because of them. */
  readonly pagesSharing: number;
  /** Pages that change too often to be merged. */
  readonly pagesVolatile: number;
  readonly fullScans: number;
  /** Looked at, ever; newer kernels count it. */
  readonly pagesScanned?: number;
  /** Memory that was given back, less what the bookkeeping takes; newer kernels tell. */
  readonly generalProfitBytes?: number;
  /** Of ksmd, ever; undefined where it cannot be seen. */
  readonly cpuMs?: number;
}

/** The kernel's scanner and the values it had before us. */
export class KsmHost {
  readonly #fs: KsmFs;
  readonly #savedPath: string;
  /** Looked for once: it is there from the boot on, or cannot be seen from here at all. */
  readonly #ksmdPid = once(() => this.#findKsmd());

  constructor(fs: KsmFs, savedPath: string) {
    this.#fs = fs;
    this.#savedPath = savedPath;
  }

  /** Undefined when this kernel has no KSM. */
  async values(): Promise<KsmValues | undefined> {
    const [run, pages, sleep, advisor] = await Promise.all([
      this.#read('run'),
      this.#read('pages_to_scan'),
      this.#read('sleep_millisecs'),
      this.#read('advisor_mode'),
    ]);
    if (run === undefined || pages === undefined || sleep === undefined) return undefined;
    const mode = /\[([^\]]+)\]/.exec(advisor ?? '')?.[1];
    return {
      run,
      pages_to_scan: pages,
      sleep_millisecs: sleep,
      ...(mode === undefined ? {} : { advisor_mode: mode }),
    };
  }

  async run(): Promise<string | undefined> {
    return this.#read('run');
  }

  /** What an earlier daemon found before it changed anything; undefined when it has restored it, or the host has booted since. */
  async saved(): Promise<KsmValues | undefined> {
    const text = await this.#fs.read(this.#savedPath);
    if (text === undefined) return undefined;
    const saved = savedSchema.safeParse(parseJson(text));
    return saved.success && saved.data.bootId === (await this.#bootId()) ? saved.data.values : undefined;
  }

  async save(values: KsmValues): Promise<void> {
    const saved = { schemaVersion: 1, bootId: await this.#bootId(), values };
    await this.#fs.keep(this.#savedPath, `${JSON.stringify(saved, null, 2)}\n`);
  }

  async forget(): Promise<void> {
    await this.#fs.removeGone(this.#savedPath);
  }

  /** Stops the scanner and gives it its values back; pages that are merged stay so until they are written. */
  async restore(values: KsmValues): Promise<void> {
    // Never 2, which takes all merged pages of the host apart at once: that memory may not be there.
    await this.#write('run', values.run === '1' ? '1' : '0');
    // An advisor lets nobody else choose the speed.
    if (values.advisor_mode !== undefined) await this.#write('advisor_mode', 'none');
    await this.#write('pages_to_scan', values.pages_to_scan);
    await this.#write('sleep_millisecs', values.sleep_millisecs);
    if (values.advisor_mode !== undefined) await this.#write('advisor_mode', values.advisor_mode);
  }

  /** Takes all merged pages of the host apart; frees what the scanner keeps of processes that are gone. */
  async unmerge(): Promise<void> {
    await this.#write('run', '2');
  }

  /** @returns what `run` is then */
  async setRate({ pagesToScan, sleepMs }: ScanRate, hasAdvisor: boolean): Promise<string> {
    const run = pagesToScan === 0 ? '0' : '1';
    if (pagesToScan > 0) {
      if (hasAdvisor) await this.#write('advisor_mode', 'none');
      await this.#write('pages_to_scan', String(pagesToScan));
      await this.#write('sleep_millisecs', String(sleepMs));
    }
    await this.#write('run', run);
    return run;
  }

  async counters(): Promise<KsmCounters> {
    const [shared, sharing, unstable, scans, scanned, profit, cpuMs] = await Promise.all([
      this.#number('pages_shared'),
      this.#number('pages_sharing'),
      this.#number('pages_volatile'),
      this.#number('full_scans'),
      this.#number('pages_scanned'),
      this.#number('general_profit'),
      this.#cpuMs(),
    ]);
    return {
      pagesShared: shared ?? 0,
      pagesSharing: sharing ?? 0,
      pagesVolatile: unstable ?? 0,
      fullScans: scans ?? 0,
      ...(scanned === undefined ? {} : { pagesScanned: scanned }),
      ...(profit === undefined ? {} : { generalProfitBytes: profit }),
      ...(cpuMs === undefined ? {} : { cpuMs }),
    };
  }

  /**
   * Processes that have offered pages to be merged, whoever they are; newer kernels tell (proc, ksm_stat),
   * some only for those that were once looked at. Undefined where the kernel does not tell.
   */
  async mergeableProcesses(): Promise<number[] | undefined> {
    if ((await this.#fs.read('/proc/self/ksm_stat')) === undefined) return undefined;
    const found: number[] = [];
    for (const pid of await this.#fs.list('/proc')) {
      if (!/^\d+$/.test(pid)) continue;
      const stat = (await this.#fs.read(`/proc/${pid}/ksm_stat`)) ?? '';
      if (/^ksm_mergeable: yes$/m.test(stat) || /^ksm_rmap_items [1-9]/m.test(stat)) found.push(Number(pid));
    }
    return found;
  }

  /** How much processes wait for processors, 0 to 100. */
  async pressurePercent(): Promise<number> {
    const pressure = parsePressure((await this.#fs.read('/proc/pressure/cpu')) ?? '');
    return pressure ?? pressureOfLoad((await this.#fs.read('/proc/loadavg')) ?? '', availableParallelism());
  }

  async #cpuMs(): Promise<number | undefined> {
    const pid = await this.#ksmdPid();
    if (pid === undefined) return undefined;
    const fields = statFields(await this.#fs.read(`/proc/${pid}/stat`));
    // utime and stime are fields 14 and 15 of proc(5); these begin with the third.
    return fields === undefined ? undefined : (Number(fields[11]) + Number(fields[12])) * tickMs;
  }

  async #findKsmd(): Promise<string | undefined> {
    for (const pid of await this.#fs.list('/proc')) {
      if (!/^\d+$/.test(pid)) continue;
      const stat = await this.#fs.read(`/proc/${pid}/stat`);
      if (stat?.startsWith(`${pid} (ksmd) `) === true && statFields(stat)?.[1] === kthreaddPid) return pid;
    }
    return undefined;
  }

  async #bootId(): Promise<string> {
    return ((await this.#fs.read('/proc/sys/kernel/random/boot_id')) ?? '').trim();
  }

  async #number(name: string): Promise<number | undefined> {
    const text = await this.#read(name);
    return text === undefined ? undefined : Number(text);
  }

  async #read(name: string): Promise<string | undefined> {
    return (await this.#fs.read(join(directory, name)))?.trim();
  }

  async #write(name: string, value: string): Promise<void> {
    await this.#fs.write(join(directory, name), value);
  }
}

/** Those after the program's name, which may hold anything. */
function statFields(stat: string | undefined): string[] | undefined {
  return stat
    ?.slice(stat.lastIndexOf(')') + 2)
    .trim()
    .split(' ');
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

import { isErrno, messageOf } from '../../base/errors.js';
import type { Logger } from '../../base/logger.js';
import { MIB } from '../../base/units.js';
import type { VmRecord } from '../../model/vm.js';
import type { KsmCounters, KsmHost, KsmValues } from './ksm-host.js';
import type { ScanRate } from './throttle.js';
import { isWorthChanging, measuredPageCostUs, pageCostUsDefault, scanRate } from './throttle.js';

/**
 * The life of the scanner:
 *
 *     off ──a VM of the domain──► fast ◄──► slow      resting: too many wait for processors
 *      ▲                           └──► resting ◄──┘
 *      └──────the last one is gone, or the daemon ends──── (with the values it had before)
 *
 *     foreign       somebody else has switched it on, or off while it was ours: it is theirs
 *     unavailable   this kernel has none, or does not let us
 */
export type KsmState = 'unavailable' | 'foreign' | 'off' | 'fast' | 'slow' | 'resting';

/** The cost of merging and what it gives, of the whole host. */
export interface KsmReport extends KsmCounters {
  readonly state: KsmState;
  /** VMs whose pages may be merged. */
  readonly vms: number;
  readonly rate: ScanRate;
  readonly pageCostUs: number;
}

export interface KsmScannerOptions {
  readonly host: KsmHost;
  /** The domains that opted in: none, or one. */
  readonly domains: readonly string[];
  /** All VMs of this node. */
  readonly records: () => readonly VmRecord[];
  readonly logger: Logger;
  readonly intervalMs?: number;
  /** So long new VMs are scanned fast at least. */
  readonly freshMsMin?: number;
}

/** The kernel averages pressure over ten seconds; nothing is known sooner. */
const defaultIntervalMs = 5_000;
/**
 * A page is merged at the third pass: the first takes its checksum, the second sees that it has not
 * changed and remembers it, and then another can be found equal to it. One more, as the first has begun already.
 */
const freshScans = 4;
/** Passes over few VMs take a second each, but a pod's programs take longer to come to rest. */
const defaultFreshMsMin = 30_000;
/** A guest that writes all the time never comes to rest. */
const freshMsMax = 10 * 60_000;
/** What is logged: at least so much more or less memory, and so large a part of it. */
const notableBytes = 64 * MIB;
const notablePart = 0.25;
const pageBytes = 4_096;
const namedPidsMax = 10;
const rest: ScanRate = { pagesToScan: 0, sleepMs: 0 };

/** Lets the kernel merge equal pages of the VMs of one domain, as fast as the node's other work allows. */
export class KsmScanner {
  readonly #options: KsmScannerOptions;
  #state: KsmState = 'off';
  /** What was there before us, while it is ours. */
  #before: KsmValues | undefined;
  /** What we wrote last; undefined: nothing yet. */
  #run: string | undefined;
  #rate = rest;
  #pageCostUs = pageCostUsDefault;
  #measuredFrom: KsmCounters | undefined;
  #known = new Set<string>();
  #fresh = { fromMs: 0, untilScans: 0 };
  #loggedBytes = 0;
  #timer: NodeJS.Timeout | undefined;
  /** Before, what an earlier daemon left is not known yet; after, it is no longer ours. */
  #active = false;
  /** One step at a time. */
  #tail: Promise<void> = Promise.resolve();

  constructor(options: KsmScannerOptions) {
    this.#options = options;
  }

  /** Takes over, or takes back, what a daemon that died has changed. Never fails: merging is not needed. */
  async start(): Promise<void> {
    await this.#step('taking over the scanner for equal pages', () => this.#begin());
    this.#active = true;
    await this.update();
  }

  /**
   * To be called when VMs came or went; does so by itself from time to time while there are any, or something
   * to give back.
   */
  async update(): Promise<void> {
    await this.#step('throttling the scanner for equal pages', () => this.#tick());
  }

  async report(): Promise<KsmReport> {
    const { host } = this.#options;
    return {
      ...(await host.counters()),
      state: this.#state,
      vms: this.#vms().length,
      rate: this.#rate,
      pageCostUs: this.#pageCostUs,
    };
  }

  /** Gives the kernel the values back that it had. */
  async close(): Promise<void> {
    this.#active = false;
    clearTimeout(this.#timer);
    await this.#step('giving the scanner for equal pages back', () => this.#giveBack());
  }

  async #begin(): Promise<void> {
    const { host, domains, logger } = this.#options;
    this.#before = await host.saved();
    if (domains.length === 0) {
      await this.#giveBack();
      return;
    }
    const values = await host.values();
    if (values === undefined) {
      this.#state = 'unavailable';
      logger.warn('vm.ksm_domains has no effect: this kernel has no KSM (CONFIG_KSM)');
      return;
    }
    if (this.#before !== undefined) return;
    if (values.run === '1') await this.#leaveToOthers();
  }

  async #tick(): Promise<void> {
    clearTimeout(this.#timer);
    if (this.#state === 'unavailable' || this.#state === 'foreign' || !this.#active) return;
    // First: when this step fails the next must come all the same.
    this.#timer = setTimeout(() => void this.update(), this.#options.intervalMs ?? defaultIntervalMs).unref();
    const vms = this.#vms();
    if (vms.length === 0) {
      this.#known.clear();
      await this.#giveBack();
      clearTimeout(this.#timer);
      return;
    }
    if (!(await this.#take())) {
      clearTimeout(this.#timer);
      return;
    }
    const counters = await this.#options.host.counters();
    this.#measure(counters);
    const isFresh = this.#isFresh(vms, counters);
    const pressurePercent = await this.#options.host.pressurePercent();
    await this.#go(isFresh, scanRate({ isFresh, pressurePercent, pageCostUs: this.#pageCostUs }));
    this.#logGain(counters);
  }

  /** Makes the scanner ours, if it is not. @returns false when it is somebody else's */
  async #take(): Promise<boolean> {
    const { host } = this.#options;
    if (this.#before === undefined) {
      const values = await host.values();
      if (values === undefined || values.run === '1') {
        await this.#leaveToOthers();
        return false;
      }
      // On the disk before anything changes: a daemon that dies now leaves word for the next.
      await host.save(values);
      this.#before = values;
      await this.#warnOfOthers();
      return true;
    }
    if (this.#run === undefined || (await host.run()) === this.#run) return true;
    await this.#leaveToOthers();
    return false;
  }

  async #go(isFresh: boolean, rate: ScanRate): Promise<void> {
    const { host, logger } = this.#options;
    if (this.#run === undefined || isWorthChanging(this.#rate, rate)) {
      this.#run = await host.setRate(rate, this.#before?.advisor_mode !== undefined);
      this.#rate = rate;
    }
    const state = rate.pagesToScan === 0 ? 'resting' : isFresh ? 'fast' : 'slow';
    // Pressure comes and goes; only the beginning is news.
    if (this.#state === 'off') logger.info('scanning for equal pages begins', { state, ...rate });
    else if (state !== this.#state) logger.debug('scanning for equal pages', { state, ...rate });
    this.#state = state;
  }

  /** Stops, with the values from before, which are remembered until that has worked. */
  async #giveBack(): Promise<void> {
    const { host, logger } = this.#options;
    if (this.#before !== undefined) {
      // Switched over by somebody else meanwhile, it is theirs.
      if (this.#run === undefined || (await host.run()) === this.#run) {
        // What is there from here on is ours, wherever this ends.
        this.#run = undefined;
        if (await this.#isNobodyLeft()) await this.#freeAll();
        await host.restore(this.#before);
      }
      logger.info('no more scanning for equal pages');
    }
    await host.forget();
    this.#before = undefined;
    this.#run = undefined;
    this.#rate = rest;
    this.#measuredFrom = undefined;
    if (this.#state !== 'unavailable' && this.#state !== 'foreign') this.#state = 'off';
  }

  /** The kernel may have no memory for it; then the values come first, and it frees the rest by and by. */
  async #freeAll(): Promise<void> {
    try {
      await this.#options.host.unmerge();
    } catch (error) {
      this.#options.logger.warn('what the kernel remembers of VMs that are gone could not be freed', {
        error: messageOf(error),
      });
    }
  }

  /**
   * Whether no process of the host has mergeable pages. The scanner’s memory of processes that are gone,
   * which it frees at its next pass, may be freed at once then: there is nothing else to take apart.
   */
  async #isNobodyLeft(): Promise<boolean> {
    if (this.#vms().length > 0) return false;
    return (await this.#options.host.mergeableProcesses())?.length === 0;
  }

  async #leaveToOthers(): Promise<void> {
    const { host, logger } = this.#options;
    const { pagesShared } = await host.counters();
    this.#state = 'foreign';
    this.#before = undefined;
    await host.forget();
    logger.warn(
      'the kernel’s scanner for equal pages was switched by somebody else and is left to them: speed and ' +
        'cost are theirs, and mergeable pages of their processes are merged with those of VMs of this domain',
      { domain: this.#options.domains.join(), pagesShared },
    );
  }

  async #warnOfOthers(): Promise<void> {
    const { host, records, domains, logger } = this.#options;
    const ours = new Set(records().map(({ pid }) => pid));
    const others = ((await host.mergeableProcesses()) ?? []).filter((pid) => !ours.has(pid));
    if (others.length === 0) return;
    logger.warn(
      'other processes of this host let their pages be merged, and the kernel merges them with those of VMs ' +
        'of this domain; start them without (QEMU: mem-merge=off)',
      { domain: domains.join(), processes: others.length, pids: others.slice(0, namedPidsMax).join() },
    );
  }

  #vms(): VmRecord[] {
    const { domains, records } = this.#options;
    return records().filter(
      ({ mergeable, domain, pid }) => mergeable === true && domains.includes(domain) && pid > 0,
    );
  }

  #isFresh(vms: readonly VmRecord[], { fullScans }: KsmCounters): boolean {
    const ids = new Set(vms.map(({ id }) => id));
    if ([...ids].some((id) => !this.#known.has(id)))
      this.#fresh = { fromMs: performance.now(), untilScans: fullScans + freshScans };
    this.#known = ids;
    const sinceMs = performance.now() - this.#fresh.fromMs;
    const { freshMsMin = defaultFreshMsMin } = this.#options;
    return sinceMs < freshMsMin || (sinceMs < freshMsMax && fullScans < this.#fresh.untilScans);
  }

  /** What a page costs depends on the processor and on how many pages are alike. */
  #measure(now: KsmCounters): void {
    const from = this.#measuredFrom;
    if (now.cpuMs === undefined || now.pagesScanned === undefined) return;
    if (from?.cpuMs === undefined || from.pagesScanned === undefined) {
      this.#measuredFrom = now;
      return;
    }
    const cost = measuredPageCostUs(now.cpuMs - from.cpuMs, now.pagesScanned - from.pagesScanned);
    if (cost === undefined) return;
    this.#pageCostUs = cost;
    this.#measuredFrom = now;
  }

  #logGain({ pagesShared, pagesSharing, fullScans, generalProfitBytes, cpuMs }: KsmCounters): void {
    const bytes = pagesSharing * pageBytes;
    const difference = Math.abs(bytes - this.#loggedBytes);
    if (difference < notableBytes || difference < notablePart * this.#loggedBytes) return;
    this.#loggedBytes = bytes;
    this.#options.logger.info('equal pages are merged', {
      savedMib: Math.round(bytes / MIB),
      pagesShared,
      pagesSharing,
      fullScans,
      generalProfitBytes,
      ksmdCpuMs: cpuMs,
    });
  }

  async #step(what: string, body: () => Promise<void>): Promise<void> {
    const step = this.#tail.then(body).catch((error: unknown) => {
      const isRefused = ['EACCES', 'EROFS', 'EPERM'].some((code) => isErrno(error, code));
      if (isRefused) this.#state = 'unavailable';
      this.#options.logger.warn(`${what} failed`, { error: messageOf(error), triesAgain: !isRefused });
    });
    this.#tail = step;
    await step;
  }
}

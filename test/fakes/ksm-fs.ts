/** The kernel's files of KSM in memory, with its rules; what stays when the daemon dies. */
import type { KsmFs } from '../../lib/vm/ksm/ksm-fs.js';

const directory = '/sys/kernel/mm/ksm';
export const ksmdPid = 36;

export class FakeKsmFs implements KsmFs {
  readonly files = new Map<string, string>([
    [`${directory}/run`, '0\n'],
    [`${directory}/pages_to_scan`, '100\n'],
    [`${directory}/sleep_millisecs`, '20\n'],
    [`${directory}/advisor_mode`, 'none [scan-time]\n'],
    [`${directory}/pages_shared`, '0\n'],
    [`${directory}/pages_sharing`, '0\n'],
    [`${directory}/full_scans`, '0\n'],
    [`${directory}/pages_scanned`, '0\n'],
    [`${directory}/general_profit`, '0\n'],
    ['/proc/pressure/cpu', 'some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n'],
    ['/proc/loadavg', '0.00 0.00 0.00 1/100 1000\n'],
    ['/proc/sys/kernel/random/boot_id', 'boot-1\n'],
    ['/proc/self/ksm_stat', 'ksm_rmap_items 0\nksm_mergeable: no\n'],
    ['/proc/7/stat', '7 (ksmd) S 1 0 0 0 0 0 0 0 0 0 99 99 0 0\n'],
  ]);
  /** Every write to a file of the kernel, as `name=value`. */
  readonly writes: string[] = [];
  /** Writes to this file, or of this value only, fail with this code. */
  refuse: { readonly name: string; readonly code: string; readonly value?: string } | undefined;
  /** Writes still allowed; then the daemon is dead and nothing it does has any effect. */
  writesLeft = Number.POSITIVE_INFINITY;

  constructor() {
    this.setCpuTicks(0);
  }

  ksm(name: string): string | undefined {
    return this.files.get(`${directory}/${name}`)?.trim();
  }

  setKsm(name: string, value: string | undefined): void {
    if (value === undefined) this.files.delete(`${directory}/${name}`);
    else this.files.set(`${directory}/${name}`, `${value}\n`);
  }

  setPressure(percent: number): void {
    this.files.set('/proc/pressure/cpu', `some avg10=${percent.toFixed(2)} avg60=0.00 avg300=0.00 total=1\n`);
  }

  setCpuTicks(ticks: number): void {
    this.files.set(
      `/proc/${String(ksmdPid)}/stat`,
      `${String(ksmdPid)} (ksmd) S 2 0 0 0 -1 0 0 0 0 0 0 ${String(ticks)} 0 0 25 5 1 0\n`,
    );
  }

  read(path: string): Promise<string | undefined> {
    return Promise.resolve(this.files.get(path));
  }

  async write(path: string, value: string): Promise<void> {
    await Promise.resolve();
    const name = path.slice(directory.length + 1);
    if (this.refuse?.name === name && (this.refuse.value ?? value) === value)
      throw Object.assign(new Error(`${this.refuse.code}: ${name}`), this.refuse);
    if (this.#dies()) return;
    if (!this.files.has(path)) throw Object.assign(new Error(`ENOENT: ${path}`), { code: 'ENOENT' });
    const isAdvised = this.ksm('advisor_mode')?.includes('[scan-time]') === true;
    if (isAdvised && name === 'pages_to_scan') throw Object.assign(new Error('EINVAL'), { code: 'EINVAL' });
    this.writes.push(`${name}=${value}`);
    const shown = value === 'none' ? '[none] scan-time' : value === 'scan-time' ? 'none [scan-time]' : value;
    this.files.set(path, `${shown}\n`);
  }

  async keep(path: string, text: string): Promise<void> {
    await Promise.resolve();
    if (!this.#dies()) this.files.set(path, text);
  }

  async removeGone(path: string): Promise<void> {
    await Promise.resolve();
    if (!this.#dies()) this.files.delete(path);
  }

  list(path: string): Promise<string[]> {
    const names = [...this.files.keys()].filter((name) => name.startsWith(`${path}/`));
    return Promise.resolve([
      ...new Set(names.map((name) => name.slice(path.length + 1).split('/')[0] ?? '')),
    ]);
  }

  #dies(): boolean {
    if (this.writesLeft <= 0) return true;
    this.writesLeft -= 1;
    return false;
  }
}

/** Tenants come and go for as long as the daemon runs, and what was counted for them stays in memory. */
const domainsMax = 256;
/** Not the name of any tenant: those are made of letters, digits and dashes. */
const allOthers = '(others)';

/** The domains that are told apart; those that come when there are too many are counted together. */
export class DomainLabels {
  readonly #known = new Set<string>();

  of(domain: string): string {
    if (this.#known.has(domain)) return domain;
    if (this.#known.size >= domainsMax) return allOthers;
    this.#known.add(domain);
    return domain;
  }
}

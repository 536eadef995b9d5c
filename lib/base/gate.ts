/** Something that happens once, and that others wait for. */
export class Gate {
  readonly opened: Promise<void>;
  #open: () => void = () => undefined;
  #isOpen = false;

  constructor() {
    this.opened = new Promise((resolve) => {
      this.#open = resolve;
    });
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Again, it does nothing. */
  open(): void {
    this.#isOpen = true;
    this.#open();
  }
}

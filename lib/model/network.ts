/** A pod's network as the CNI plugins gave it and the guest must show it. */

export interface Address {
  /** Without the prefix length, IPv4 or IPv6. */
  readonly ip: string;
  readonly prefixLength: number;
}

export interface Route {
  /** CIDR; `0.0.0.0/0` and `::/0` are the default routes. */
  readonly destination: string;
  /** Undefined for a route that is on the link. */
  readonly gateway?: string;
  /** The gateway is reachable on the link though no address covers it (`onlink`). */
  readonly onLink: boolean;
  readonly mtu?: number;
  readonly metric?: number;
  /** Bytes of the largest TCP segment to advertise on this route. */
  readonly advertisedMss?: number;
}

/** One interface inside the guest; found there by its MAC address. */
export interface GuestInterface {
  readonly name: string;
  readonly mac: string;
  /** What the guest finds the card by when that is not `mac` yet. */
  readonly cardMac?: string;
  readonly mtu: number;
  readonly addresses: readonly Address[];
  readonly routes: readonly Route[];
}

export interface NetworkAttachment {
  /** The primary address first, then the others (dual stack). */
  readonly ips: readonly string[];
  readonly interfaces: readonly GuestInterface[];
}

/** What the operator may choose about pod networks; `lib/config` fills it. */
export interface CniSettings {
  /** Letters and digits; begins the name of every namespace of this daemon. Two daemons on one host differ in it. */
  readonly instance: string;
  /** The program `herkos-host`. */
  readonly hostHelper: string;
  /** Where network add-ons put their configuration: the first file in lexical order decides. */
  readonly confDir: string;
  /** Searched in order for plugin binaries. */
  readonly binDirs: readonly string[];
  /** Own state: `attachments/` (what to give back), `net.d/` (the built-in network), `ipam/` (its leases). */
  readonly stateDir: string;
  /** Used while `confDir` holds no configuration; undefined: pods then wait for one. */
  readonly defaultNetwork?: DefaultNetworkSettings;
  /** One call of one plugin. */
  readonly pluginTimeoutMs: number;
  /**
   * No other runtime or daemon uses the networks of `confDir` on this host. Only then may CNI GC be
   * called: it takes the addresses of every attachment that we do not name.
   */
  readonly soleRuntime: boolean;
}

export interface DefaultNetworkSettings {
  readonly name: string;
  readonly bridge: string;
  /** One CIDR of each family at most. */
  readonly subnets: readonly string[];
  /** Undefined: the kernel's 1500. */
  readonly mtu?: number;
}

export const cniDefaults = {
  instance: 'herkos',
  confDir: '/etc/cni/net.d',
  /** Upstream's and Debian's place. */
  binDirs: ['/opt/cni/bin', '/usr/lib/cni'],
  stateDir: '/var/lib/herkos/cni',
  defaultNetwork: {
    name: 'herkos-default',
    bridge: 'herkos0',
    // Away from the ranges that podman, CRI-O, flannel, k3s, calico and docker take by themselves.
    subnets: ['10.219.0.0/16', 'fd68:6572:6b6f:1::/64'],
  },
  pluginTimeoutMs: 60_000,
  soleRuntime: false,
} as const satisfies Omit<CniSettings, 'hostHelper'>;

/** The network a node has while nobody configured one: a bridge, addresses from a file, published ports. */
import { join } from 'node:path';

import { parseCidr } from '../../wire/cni/address.js';
import type { JsonObject } from '../../wire/cni/json.js';
import type { CniSettings, DefaultNetworkSettings } from './settings.js';

export const defaultConfigFile = '10-herkos-default.conflist';

/** The configuration list as JSON. Debian's plugins speak CNI 1.0. */
export function defaultConflist(network: DefaultNetworkSettings, stateDir: string): JsonObject {
  const subnets = network.subnets.map((text) => parseCidr(text, 'the default network'));
  return {
    cniVersion: '1.0.0',
    name: network.name,
    plugins: [
      {
        type: 'bridge',
        bridge: network.bridge,
        isGateway: true,
        ipMasq: true,
        // A pod may reach itself through its own published port.
        hairpinMode: true,
        ...(network.mtu === undefined ? {} : { mtu: network.mtu }),
        ipam: {
          type: 'host-local',
          // In our own state, so that nothing stays in /var/lib/cni when Herkos goes.
          dataDir: join(stateDir, 'ipam'),
          ranges: network.subnets.map((subnet) => [{ subnet }]),
          routes: subnets.map(({ ip }) => ({ dst: ip.includes(':') ? '::/0' : '0.0.0.0/0' })),
        },
      },
      // snat lets 127.0.0.1 reach a published port, by route_localnet and masquerading.
      { type: 'portmap', capabilities: { portMappings: true }, snat: true },
    ],
  };
}

export function defaultConfDir(settings: CniSettings): string {
  return join(settings.stateDir, 'net.d');
}

/**
 * The standard plugins `bridge` and `ptp` find the masquerading rules they have to remove by the
 * addresses of the interface inside the namespace. When the namespace is gone (a reboot, a crash, an
 * operator), they would leave the rules behind. So DEL then gets a throw-away namespace in which a
 * device of that name has those addresses.
 */
import { randomBytes } from 'node:crypto';

import type { Context } from '../../base/context.js';
import { background } from '../../base/context.js';
import { messageOf } from '../../base/errors.js';
import type { Exec } from '../../base/exec.js';
import { bitsOf } from '../../base/ip.js';
import type { Logger } from '../../base/logger.js';
import { isV4 } from '../../wire/cni/address.js';
import { booleanAt } from '../../wire/cni/json.js';
import { normaliseResult } from '../../wire/cni/result.js';
import type { Attachment } from './attachment-cache.js';
import { checkIfName, ipBatch } from './link.js';
import { CniNetnsFactory } from './netns.js';

const addressReaders = new Set(['bridge', 'ptp']);

interface StandInParts {
  readonly exec: Exec;
  readonly instance: string;
  readonly hostHelper: string;
  readonly logger: Logger;
}

/** True when DEL would leave rules behind without a namespace to look into. */
export function needsStandIn(attachment: Attachment): boolean {
  return (
    attachment.result !== undefined &&
    attachment.config.plugins.some(
      (plugin) => addressReaders.has(plugin.type) && booleanAt(plugin.raw, 'ipMasq', plugin.type),
    )
  );
}

/** Runs `body` with the path of a stand-in that is removed afterwards, whatever happens. */
export async function withStandIn<T>(
  ctx: Context,
  parts: StandInParts,
  attachment: Attachment,
  body: (netnsPath: string) => Promise<T>,
): Promise<T> {
  const factory = new CniNetnsFactory(parts.exec, parts.instance, parts.hostHelper);
  // A name of the instance's pattern: a sweep after a crash finds it like any other.
  const name = `${parts.instance}-x${randomBytes(8).toString('hex')}`;
  const { path } = await factory.create(ctx, name, 0);
  try {
    await ipBatch(ctx, parts.exec, path, deviceLines(attachment));
    return await body(path);
  } finally {
    await factory.deleteGone(background(), name).catch((error: unknown) => {
      parts.logger.warn('cannot delete a stand-in namespace', { name, error: messageOf(error) });
    });
  }
}

function deviceLines(attachment: Attachment): string[] {
  checkIfName(attachment.ifName);
  const { ips } = normaliseResult(attachment.result ?? {}, 'the cached result');
  return [
    `link add ${attachment.ifName} type veth peer name peer0`,
    ...ips.map(({ address: { ip } }) => {
      const nodad = isV4(ip) ? '' : ' nodad';
      return `address add ${ip}/${String(bitsOf(ip))} dev ${attachment.ifName}${nodad}`;
    }),
  ];
}

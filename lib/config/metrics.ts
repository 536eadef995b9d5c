import { isIP } from 'node:net';

import { z } from 'zod';

const portMax = 65_535;

/** `127.0.0.1:9464` or `[::1]:9464`; becomes its parts, or nothing when it is empty. */
const address = z.string().transform((text, context) => {
  if (text === '') return undefined;
  const [, six, four, digits] = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(text) ?? [];
  const host = six ?? four ?? '';
  const port = Number(digits);
  if (isIP(host) === (six === undefined ? 4 : 6) && port <= portMax) return { host, port };
  context.addIssue({
    code: 'custom',
    message: 'write an IP address and a port, such as "127.0.0.1:9464" or "[::1]:9464", or nothing for none',
  });
  return z.NEVER;
});

/** `[metrics]`: what the daemon tells of itself over HTTP. */
export const metricsSection = z.strictObject({
  /** Where /metrics and /healthz are served, to anybody who can connect; port 0: any that is free. Empty: nowhere. */
  address: address.prefault(''),
});

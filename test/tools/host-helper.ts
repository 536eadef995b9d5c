import { fileURLToPath } from 'node:url';

/** The program `herkos-host`, as set-up builds it. */
export const hostHelper = fileURLToPath(
  new URL('../../../cmd/herkos-host/target/x86_64-unknown-linux-gnu/release/herkos-host', import.meta.url),
);

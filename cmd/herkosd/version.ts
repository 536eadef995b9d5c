import { readFileSync } from 'node:fs';

const packageFile = new URL('../../../package.json', import.meta.url);

/** As package.json says; what `Version` and `--version` report. */
export const version = (JSON.parse(readFileSync(packageFile, 'utf8')) as { version: string }).version;

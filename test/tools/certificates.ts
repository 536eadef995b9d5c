/** Throw-away certificates made with openssl. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { background } from '../../lib/base/context.js';
import { systemExec } from '../../lib/base/exec.js';

export interface Certificates {
  readonly caPath: string;
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  readonly certPath: string;
  readonly keyPath: string;
  readonly clientCertPath: string;
  readonly clientKeyPath: string;
}

/** A CA, a server certificate for localhost and 127.0.0.1, and a client certificate, all in `directory`. */
export async function makeCertificates(directory: string): Promise<Certificates> {
  const file = (name: string): string => join(directory, name);
  const openssl = async (...args: string[]): Promise<void> => {
    await systemExec.run(background(), 'openssl', args, { cwd: directory });
  };
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const caSubject = ['-subj', '/CN=herkos test CA', '-addext', 'basicConstraints=critical,CA:TRUE'];
  await openssl('req', '-x509', ...newKey, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', ...caSubject);
  await writeFile(file('server.ext'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n');
  await writeFile(file('client.ext'), 'extendedKeyUsage=clientAuth\n');
  for (const name of ['server', 'client']) {
    await openssl('req', ...newKey, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
    const from = ['-in', `${name}.csr`, '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial'];
    await openssl('x509', '-req', ...from, '-out', `${name}.pem`, '-days', '2', '-extfile', `${name}.ext`);
  }
  return {
    caPath: file('ca.pem'),
    ca: await readFile(file('ca.pem'), 'utf8'),
    cert: await readFile(file('server.pem'), 'utf8'),
    key: await readFile(file('server.key'), 'utf8'),
    certPath: file('server.pem'),
    keyPath: file('server.key'),
    clientCertPath: file('client.pem'),
    clientKeyPath: file('client.key'),
  };
}

import { HerkosError } from '../../base/errors.js';
import { agentPortName } from './command-line.js';

/** What the guest's kernel passes on unchanged, and a file name there. */
const namePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
/** sun_path of unix(7), with its final zero. */
const socketPathLengthMax = 107;

/** @throws HerkosError `InvalidArgument` for what cannot name a port or a socket */
export function checkSerialPort(name: string, socketPath: string): void {
  if (!namePattern.test(name) || name === agentPortName)
    throw new HerkosError(
      'InvalidArgument',
      `a guest's port cannot be called ${JSON.stringify(name.slice(0, 100))}`,
    );
  const length = Buffer.byteLength(socketPath);
  if (!socketPath.startsWith('/') || length > socketPathLengthMax || socketPath.includes('\0'))
    throw new HerkosError(
      'InvalidArgument',
      `the socket of port ${name} needs an absolute path of at most ${String(socketPathLengthMax)} bytes`,
    );
}

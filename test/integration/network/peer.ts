/**
 * A program that speaks TCP or UDP, to be run inside a namespace:
 *   peer.js serve tcp|udp HOST PORT GREETING     prints `listening`, answers everybody with `GREETING from ADDRESS`
 *   peer.js ask tcp|udp HOST PORT [LOCAL_PORT]   prints the answer; exit code 1 when there is none in time
 */
import { createSocket } from 'node:dgram';
import { connect, createServer, isIPv6 } from 'node:net';

const answerTimeoutMs = 3_000;
const [role, protocol, host = '', port = '', extra = ''] = process.argv.slice(2);
const udpType = isIPv6(host) ? 'udp6' : 'udp4';

function fail(why: string): void {
  process.stderr.write(`${why}\n`);
  process.exit(1);
}

function serveTcp(): void {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.end(`${extra} from ${socket.remoteAddress ?? '?'}`);
  });
  server.listen(Number(port), host, () => process.stdout.write('listening\n'));
}

function serveUdp(): void {
  const socket = createSocket(udpType);
  socket.on('message', (_, from) => {
    socket.send(`${extra} from ${from.address}`, from.port, from.address);
  });
  socket.bind(Number(port), host, () => process.stdout.write('listening\n'));
}

function askTcp(): void {
  const socket = connect(Number(port), host);
  let answer = '';
  socket.on('data', (part: Buffer) => (answer += part.toString('utf8')));
  socket.on('error', (error) => {
    fail(error.message);
  });
  socket.on('end', () => {
    process.stdout.write(answer);
    process.exit(0);
  });
}

function askUdp(): void {
  const socket = createSocket(udpType);
  socket.on('message', (message) => {
    process.stdout.write(message);
    process.exit(0);
  });
  socket.bind(extra === '' ? 0 : Number(extra), () => {
    socket.send('hello', Number(port), host);
  });
}

if (role === 'serve') (protocol === 'tcp' ? serveTcp : serveUdp)();
else {
  setTimeout(() => {
    fail('no answer');
  }, answerTimeoutMs);
  (protocol === 'tcp' ? askTcp : askUdp)();
}

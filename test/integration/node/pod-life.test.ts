import { readFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

import { expect } from 'chai';
import Long from 'long';

import type { runtime } from '#gen/cri/v1/api.js';

import { eventually } from '../../tools/eventually.js';
import { NodeFixture, containerStates } from '../../tools/node-fixture.js';
import { sandboxConfig } from '../../tools/pod-config.js';
import { rejection } from '../../tools/rejection.js';

type Resources = runtime.v1.LinuxContainerResources.$Properties;

const pageText = 'from a virtual machine';

describe('a pod in its own VM, as a client sees it', () => {
  let node: NodeFixture;
  let pod: string;
  let hostPort: number;

  before(async () => {
    node = await NodeFixture.start();
    hostPort = await freePort();
    const config = sandboxConfig({
      name: 'life',
      logDirectory: node.logDirectory('life'),
      more: {
        hostname: 'told',
        portMappings: [{ protocol: 0, containerPort: 80, hostPort }],
        dnsConfig: { servers: ['10.10.10.10'], searches: ['example.test'], options: ['ndots:8'] },
      },
    });
    pod = (await node.daemon.client.runtime('runPodSandbox', { config })).podSandboxId;
  });

  after(async () => {
    try {
      await node.daemon.removeAllPods();
      expect(await node.daemon.leftovers()).to.deep.equal([]);
    } finally {
      await node.stop();
    }
  });

  it('serves on its own address and on the node’s port', async () => {
    const script = `echo "${pageText}" >/tmp/page; httpd -p 80 -h /tmp; sleep 3600`;
    await node.startContainer(pod, 'web', ['sh', '-c', script]);
    const { status } = await node.daemon.client.runtime('podSandboxStatus', { podSandboxId: pod });
    const ip = status?.network?.ip ?? '';
    await eventually(async () => (await get(ip, 80)).includes(pageText));
    expect(await get('127.0.0.1', hostPort)).to.include(pageText);
  });

  it('has the guest’s kernel load what a container may ask for, and nothing else', async () => {
    const security = { linux: { securityContext: { capabilities: { addCapabilities: ['NET_ADMIN'] } } } };
    const container = await node.startContainer(pod, 'bridging', ['sleep', '3600'], security);
    await node.exec(container, 'ip', 'link', 'add', 'br9', 'type', 'bridge');
    expect(await node.exec(container, 'ip', 'link', 'show', 'br9')).to.include('br9');
    const failure = await rejection(node.exec(container, 'ip', 'link', 'add', 'dummy9', 'type', 'dummy'));
    expect(String(failure)).to.match(/not supported|RTNETLINK/i);
  });

  it('gives its containers one network, one hostname and the DNS that was asked for', async () => {
    const first = await node.startContainer(pod, 'first', [
      'sh',
      '-c',
      'nc -l -p 7777 </dev/null; sleep 3600',
    ]);
    const second = await node.startContainer(pod, 'second');
    for (const container of [first, second]) {
      expect(await node.exec(container, 'hostname')).to.equal('told\n');
      const resolvConf = await node.exec(container, 'cat', '/etc/resolv.conf');
      expect(resolvConf)
        .to.match(/nameserver 10\.10\.10\.10\n/)
        .and.match(/ndots:8/);
    }
    expect(await node.exec(first, 'cat', '/proc/net/tcp')).to.equal(
      await node.exec(second, 'cat', '/proc/net/tcp'),
    );
    expect(await node.exec(second, 'cat', '/proc/1/cmdline'), 'a PID namespace of its own').to.include(
      'sleep',
    );
  });

  it('says how a container ended', async () => {
    const limit = Long.fromNumber(20 * 1024 * 1024);
    const cases = [
      { name: 'good', script: 'exit 0', code: 0, reason: 'Completed' },
      { name: 'bad', script: 'echo said; exit 3', code: 3, reason: 'Error' },
      { name: 'signal', script: 'kill -TERM $$; sleep 60', code: 143, reason: 'Error' },
      { name: 'oom', script: 'dd if=/dev/zero of=/dev/null bs=60M count=1', code: 137, reason: 'OOMKilled' },
    ];
    for (const { name, script, code, reason } of cases) {
      const resources: Resources =
        name === 'oom' ? { memoryLimitInBytes: limit, memorySwapLimitInBytes: limit } : {};
      // The shell is a child, or its being PID 1 would shield it from the signal.
      const command = name === 'signal' ? ['sh', '-c', `sh -c '${script}'; exit $?`] : ['sh', '-c', script];
      const container = await node.startContainer(pod, name, command, {
        linux: { resources, securityContext: { namespaceOptions: { network: 0, pid: 1, ipc: 0 } } },
      });
      await eventually(
        async () => (await node.containerStatus(container)).state === containerStates.CONTAINER_EXITED,
      );
      const status = await node.containerStatus(container);
      expect([status.exitCode, status.reason], name).to.deep.equal([code, reason]);
      await node.daemon.client.runtime('removeContainer', { containerId: container });
    }
    const log = await readFile(join(node.logDirectory('life'), 'bad.log'), 'utf8');
    expect(log).to.match(/^\S+ stdout F said\n$/);
  });

  it('ends an exec that takes too long, with all its children', async () => {
    const container = await node.startContainer(pod, 'slow');
    const request = {
      containerId: container,
      cmd: ['sh', '-c', 'sleep 4321 & sleep 4321'],
      timeout: Long.ONE,
    };
    let code: unknown;
    try {
      await node.daemon.client.runtime('execSync', request);
    } catch (error) {
      code = error instanceof Error && 'code' in error ? error.code : undefined;
    }
    expect(code, 'DEADLINE_EXCEEDED').to.equal(4);
    expect(await node.exec(container, 'sh', '-c', 'ps | grep "[s]leep 4321" || true')).to.equal('');
  });
});

async function get(host: string, port: number): Promise<string> {
  return new Promise((resolve) => {
    const parts: Buffer[] = [];
    const socket = connect({ host, port }, () => socket.write('GET /page HTTP/1.0\r\n\r\n'));
    socket.on('data', (part) => parts.push(part));
    socket.on('error', () => {
      resolve('');
    });
    socket.on('close', () => {
      resolve(Buffer.concat(parts).toString());
    });
  });
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

import { Client, Metadata, credentials, status } from '@grpc/grpc-js';
import type { ServiceError } from '@grpc/grpc-js';
import { expect } from 'chai';
import fc from 'fast-check';
import protobuf from 'protobufjs';
import { readFileSync } from 'node:fs';
import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';

import { MemoryLogger } from '../../fakes/cni-logger.js';
import { projectRoot } from '../../arch/project.js';
import { Harness, containerConfig, sandboxConfig } from './harness.js';

const served = [
  'Version Status RuntimeConfig UpdateRuntimeConfig',
  'RunPodSandbox StopPodSandbox RemovePodSandbox PodSandboxStatus ListPodSandbox',
  'CreateContainer StartContainer StopContainer RemoveContainer ListContainers ContainerStatus',
  'UpdateContainerResources UpdatePodSandboxResources',
  'ExecSync ReopenContainerLog',
  'ListImages ImageStatus PullImage RemoveImage ImageFsInfo',
]
  .join(' ')
  .split(' ');

const proto = readFileSync(join(projectRoot, 'api/cri/v1/api.proto'), 'utf8');
const root = protobuf.parse(proto, new protobuf.Root()).root.resolveAll();
const methods = ['RuntimeService', 'ImageService'].flatMap((name) =>
  root.lookupService(`runtime.v1.${name}`).methodsArray.map((method) => ({
    rpc: method.name,
    path: `/runtime.v1.${name}/${method.name}`,
    request: method.resolvedRequestType,
    stream: method.responseStream === true,
  })),
);

describe('the CRI server under any request', () => {
  let cri: Harness;
  let raw: Client;
  const log = new MemoryLogger();
  before(async () => {
    cri = await Harness.start(log);
    raw = new Client(`unix:${cri.socketPath}`, credentials.createInsecure());
  });
  after(async () => {
    raw.close();
    await cri.stop();
  });

  /** Sends bytes as they are and returns the status code of the answer. */
  const send = async (path: string, bytes: Buffer, stream = false): Promise<ServiceError | undefined> =>
    new Promise((resolve) => {
      const same = (buffer: Buffer): Buffer => buffer;
      const options = { deadline: Date.now() + 60_000 };
      if (stream) {
        const call = raw.makeServerStreamRequest(path, same, same, bytes, new Metadata(), options);
        call.on('data', () => undefined);
        call.on('end', () => {
          resolve(undefined);
        });
        call.on('error', (error) => {
          resolve(error as ServiceError);
        });
      } else
        raw.makeUnaryRequest(path, same, same, bytes, new Metadata(), options, (error) => {
          resolve(error ?? undefined);
        });
    });

  for (const { rpc, path, stream } of methods.filter((method) => !served.includes(method.rpc))) {
    it(`answers UNIMPLEMENTED to ${rpc}`, async () => {
      const error = await send(path, Buffer.alloc(0), stream);
      expect(error?.code).to.equal(status.UNIMPLEMENTED);
      expect(error?.details).to.contain(rpc);
    });
  }

  for (const { rpc, path, request } of methods.filter((method) => served.includes(method.rpc))) {
    it(`survives every ${rpc}Request`, async () => {
      if (request === null) throw new Error('no request type');
      const before = log.lines.length;
      await fc.assert(
        fc.asyncProperty(messageOf(request, 0), async (message) => {
          const bytes = Buffer.from(request.encode(request.fromObject(message)).finish());
          const error = await send(path, bytes);
          if (error === undefined) return;
          const faults = [status.INTERNAL, status.UNKNOWN, status.DEADLINE_EXCEEDED, status.UNAVAILABLE];
          expect(faults, `${error.details} for ${JSON.stringify(message)}`).to.not.include(error.code);
        }),
        { numRuns: 60 },
      );
      expect(log.lines.slice(before).filter(({ level }) => level === 'error')).to.deep.equal([]);
    });
  }

  for (const rpc of ['RunPodSandbox', 'CreateContainer']) {
    it(`survives every ${rpc}Request that gets past the first checks`, async () => {
      const method = methods.find((one) => one.rpc === rpc);
      if (!method?.request) throw new Error('no such RPC');
      const { request, path } = method;
      const podSandboxId = await cri.sandbox('fuzz');
      const right = rpc === 'RunPodSandbox' ? sandboxConfig('fuzz') : containerConfig();
      const config = request.fields['config']?.resolvedType as protobuf.Type;
      let accepted = 0;
      await fc.assert(
        fc.asyncProperty(fc.constantFrom(...config.fieldsArray), fc.gen(), async (field, random) => {
          const part: unknown = random(() => messageOf(config, 0, field.name))[field.name as never];
          const message = {
            podSandboxId,
            config: { ...right, ...(part === undefined ? {} : { [field.name]: part }) },
          };
          const error = await send(path, Buffer.from(request.encode(request.fromObject(message)).finish()));
          if (error === undefined) accepted += 1;
          else expect(error.code, error.details).to.equal(status.INVALID_ARGUMENT);
        }),
        { numRuns: 400 },
      );
      expect(accepted, 'accepted requests').to.be.greaterThan(0);
    });
  }

  it('answers bytes that are no message with an error, and goes on', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...methods.filter(({ stream }) => !stream)),
        fc.uint8Array({ maxLength: 200 }),
        async ({ path }, bytes) => {
          const error = await send(path, Buffer.from(bytes));
          expect(error?.code).to.not.be.oneOf([status.DEADLINE_EXCEEDED, status.UNAVAILABLE]);
        },
      ),
      { numRuns: 300 },
    );
    await cri.call(cri.rpc.version, {});
  });

  it('goes on after connections that speak no HTTP/2, or nothing at all', async () => {
    const silent = connect(cri.socketPath);
    await once(silent, 'connect');
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 500 }), async (bytes) => {
        const socket = connect(cri.socketPath);
        socket.on('error', () => undefined);
        const closed = once(socket, 'close');
        socket.resume();
        socket.end(bytes);
        await closed;
      }),
      { numRuns: 50 },
    );
    await cri.call(cri.rpc.version, {});
    silent.destroy();
  });

  it('refuses a message above 16 MiB, and goes on', async () => {
    const error = await send('/runtime.v1.RuntimeService/Version', Buffer.alloc(17 * 1024 * 1024));
    expect(error?.code).to.equal(status.RESOURCE_EXHAUSTED);
    await cri.call(cri.rpc.version, {});
  });

  it('takes a request above the 4 MiB that gRPC allows by default', async () => {
    const version = 'v'.repeat(8 * 1024 * 1024);
    await cri.call(cri.rpc.version, { version });
  });
}).timeout(120_000);

/** Random messages of a type, with strings that are sometimes the ones a handler looks for. */
function messageOf(
  type: protobuf.Type,
  depth: number,
  onlyField?: string,
): fc.Arbitrary<Record<string, unknown>> {
  const fields = Object.fromEntries(
    type.fieldsArray
      .filter(({ name }) => onlyField === undefined || name === onlyField)
      .map((field) => {
        let one = valueOf(field, depth);
        if (field instanceof protobuf.MapField)
          one = fc.dictionary(fc.string({ maxLength: 8 }), one, { maxKeys: 3 });
        else if (field.repeated) one = fc.array(one, { maxLength: 3 });
        return [field.name, one];
      }),
  );
  return fc.record(fields, { requiredKeys: [] });
}

const depthMax = 6;

function valueOf(field: protobuf.Field, depth: number): fc.Arbitrary<unknown> {
  const type = field.resolvedType;
  if (type instanceof protobuf.Enum) return fc.constantFrom(...Object.values(type.values), 77);
  if (type !== null) return depth > depthMax ? fc.constant({}) : messageOf(type, depth + 1);
  switch (field.type) {
    case 'bool':
      return fc.boolean();
    case 'string':
      return fc.oneof(fc.constantFrom('', 'a', '/a', '/a/b', '..', 'x:1', 'herkos', 'a.slice'), fc.string());
    case 'bytes':
      return fc.uint8Array({ maxLength: 20 });
    case 'int64':
      return fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n).map(String);
    case 'uint64':
      return fc.bigInt(0n, 2n ** 64n - 1n).map(String);
    case 'uint32':
      return fc.nat(2 ** 32 - 1);
    default:
      return fc.integer();
  }
}

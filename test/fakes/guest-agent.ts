/** The agent of a guest in memory: a real gRPC server on a unix socket that speaks the whole contract. */
import { randomBytes } from 'node:crypto';
import { chmod, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Server, ServerCredentials, status } from '@grpc/grpc-js';
import type {
  ServerDuplexStream,
  ServerWritableStream,
  UntypedServiceImplementation,
  sendUnaryData,
} from '@grpc/grpc-js';
import Long from 'long';

import { herkos } from '#gen/agent/v1/api.js';
import { agent } from '#gen/agent/v1/services.js';
import { nowUnixNano } from '../../lib/model/time.js';
import { FakeContainers, Refusal } from './guest-containers.js';

type Api = typeof herkos.agent.v1;
export type Sent<Name extends keyof Api> = Api[Name] extends { create(properties?: infer P): unknown }
  ? P
  : never;
type ExecCall = ServerDuplexStream<herkos.agent.v1.ExecRequest, Sent<'ExecResponse'>>;
type OutputCall = ServerDuplexStream<herkos.agent.v1.ReadOutputRequest, Sent<'OutputChunk'>>;
type WatchCall = ServerWritableStream<unknown, Sent<'ContainerExit'>>;

/** In nanoseconds. */
const halfSecond = Long.fromNumber(500_000_000);

export const goodHello: Sent<'HelloResponse'> = {
  protocolVersion: herkos.agent.v1.ProtocolVersion.PROTOCOL_VERSION_1,
  agentVersion: '0.0.0-fake',
  kernelRelease: '6.1.0-fake',
  ociRuntimeVersion: '1.0.0',
  bootMilliseconds: Long.fromNumber(12, true),
  memoryBytes: Long.fromNumber(128 * 1024 * 1024, true),
  cpus: 1,
};

/** What a test lets the agent do instead of the right thing. */
export type AgentOverrides = UntypedServiceImplementation;

/** Answers of calls that have one, from what they return or throw. */
function unary<Request, Answer>(answer: (request: Request) => Answer) {
  return (call: { request: Request }, callback: sendUnaryData<Answer>): void => {
    try {
      callback(null, answer(call.request));
    } catch (error) {
      callback(asStatus(error));
    }
  };
}

function asStatus(error: unknown): { code: status; details: string } {
  if (error instanceof Refusal) return { code: error.code, details: error.message };
  return { code: status.INTERNAL, details: String(error) };
}

export class FakeAgent {
  readonly socketPath = join(tmpdir(), `hka-${randomBytes(6).toString('hex')}`);
  readonly containers = new FakeContainers();
  /** Requests of Hello and SetupPod, in order. */
  readonly hellos: herkos.agent.v1.HelloRequest[] = [];
  readonly setups: herkos.agent.v1.SetupPodRequest[] = [];
  readonly cpusPossible = 4;
  /** What its clock has been moved by. */
  ahead = Long.ZERO;
  /** In hex; empty while it is nobody's. */
  machineId = '';
  readonly #server = new Server({ 'grpc.max_receive_message_length': 4 * 1024 * 1024 });

  private constructor(overrides: AgentOverrides) {
    this.#server.addService(agent, { ...this.#implementation(), ...overrides });
  }

  static async listen(overrides: AgentOverrides = {}): Promise<FakeAgent> {
    const fake = new FakeAgent(overrides);
    await new Promise<void>((resolve, reject) => {
      fake.#server.bindAsync(`unix:${fake.socketPath}`, ServerCredentials.createInsecure(), (error) => {
        if (error === null) resolve();
        else reject(error);
      });
    });
    await chmod(fake.socketPath, 0o600);
    return fake;
  }

  /** Ends all connections and forgets the socket. */
  async close(): Promise<void> {
    this.containers.killAll();
    this.#server.forceShutdown();
    await rm(this.socketPath, { force: true });
  }

  #becomes(machineId: string): void {
    if (machineId === '') return;
    if (machineId.length !== 32) throw new Refusal(status.INVALID_ARGUMENT, 'a machine id has 16 bytes');
    if (this.machineId !== '' && this.machineId !== machineId)
      throw new Refusal(status.INVALID_ARGUMENT, 'it has another id already');
    this.machineId = machineId;
  }

  #implementation(): UntypedServiceImplementation {
    const { containers } = this;
    return {
      hello: unary((request: herkos.agent.v1.HelloRequest) => {
        this.#becomes(Buffer.from(request.machineId).toString('hex'));
        this.hellos.push(request);
        return goodHello;
      }),
      setupPod: unary((request: herkos.agent.v1.SetupPodRequest) => {
        this.setups.push(request);
        return {};
      }),
      createContainer: unary((request: herkos.agent.v1.CreateContainerRequest) => {
        containers.create(request.containerId, request.ociConfig);
        return {};
      }),
      startContainer: unary(({ containerId }: { containerId: string }) => {
        containers.get(containerId).start();
        return {};
      }),
      signalContainer: unary(({ containerId, signal }: { containerId: string; signal: number }) => {
        containers.get(containerId).signal(signal);
        return {};
      }),
      removeContainer: unary(({ containerId }: { containerId: string }) => {
        containers.remove(containerId);
        return {};
      }),
      updateContainer: unary(({ containerId, ociResources }: herkos.agent.v1.UpdateContainerRequest) => {
        containers.get(containerId).update(ociResources);
        return {};
      }),
      onlineCpus: unary(({ cpus }: { cpus: number }) => {
        if (cpus < 1 || cpus > this.cpusPossible)
          throw new Refusal(status.INVALID_ARGUMENT, 'it can never have so many');
        return { cpus };
      }),
      adjustClock: unary(({ byNanos }: { byNanos: Long }) => {
        // What is moved over time has not been moved yet.
        if (byNanos.gte(halfSecond) || byNanos.lte(halfSecond.neg())) this.ahead = this.ahead.add(byNanos);
        return { unixNano: Long.fromString(nowUnixNano()).add(this.ahead) };
      }),
      memoryInfo: unary(() => ({
        totalBytes: Long.fromNumber(128 * 1024 * 1024, true),
        availableBytes: Long.fromNumber(100 * 1024 * 1024, true),
      })),
      listContainers: unary(() => ({ containers: containers.states() })),
      watchExits: (call: WatchCall) => {
        watchExits(containers, call);
      },
      readOutput: (call: OutputCall) => {
        readOutput(containers, call);
      },
      exec: (call: ExecCall) => {
        exec(containers, call);
      },
      shutdown: (_call: unknown, callback: sendUnaryData<unknown>) => {
        callback(null, {});
        // After the answer is out.
        setImmediate(() => void this.close());
      },
    };
  }
}

function watchExits(containers: FakeContainers, call: WatchCall): void {
  const stop = containers.onExit((exit) => call.write(exit));
  call.on('cancelled', stop);
}

function readOutput(containers: FakeContainers, call: OutputCall): void {
  let stop: () => void = () => undefined;
  let acknowledge: (offset: number) => void = () => undefined;
  call.on('data', (request: herkos.agent.v1.ReadOutputRequest) => {
    try {
      if (request.open !== undefined && request.open !== null) {
        const container = containers.get(request.open.containerId ?? '');
        const output = container.output(request.open.stream);
        acknowledge = (offset) => {
          output.acknowledge(offset);
        };
        stop = output.read(Long.fromValue(request.open.fromOffset ?? 0).toNumber(), (chunk) => {
          call.write(chunk);
          if (chunk.end) call.end();
        });
      } else if (request.acknowledgedOffset !== undefined && request.acknowledgedOffset !== null)
        acknowledge(Long.fromValue(request.acknowledgedOffset).toNumber());
    } catch (error) {
      call.emit('error', asStatus(error));
    }
  });
  call.on('cancelled', () => {
    stop();
  });
}

function exec(containers: FakeContainers, call: ExecCall): void {
  call.on('data', (request: herkos.agent.v1.ExecRequest) => {
    if (request.open === undefined || request.open === null) return;
    try {
      const process = containers.get(request.open.containerId ?? '').exec(request.open.ociProcess);
      if (process.exitCode === undefined) {
        call.on('cancelled', process.cancelled);
        return;
      }
      if (process.stdout.length > 0) for (const part of pieces(process.stdout)) call.write({ stdout: part });
      if (process.stderr.length > 0) for (const part of pieces(process.stderr)) call.write({ stderr: part });
      call.write({ exitCode: process.exitCode });
      call.end();
    } catch (error) {
      call.emit('error', asStatus(error));
    }
  });
}

function* pieces(data: Buffer, size = 64 * 1024): Generator<Buffer> {
  for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size);
}

import type { PodRoom } from './room.js';

/** Facts about a sandbox for people and tools, JSON-ready; nothing of it is secret. @throws NotFound */
export function describeSandbox(room: PodRoom, id: string): Readonly<Record<string, unknown>> {
  const entry = room.registry.sandbox(id);
  const { record, live } = entry;
  return {
    phase: record.phase,
    ...(record.failure === undefined ? {} : { failure: record.failure }),
    timings: record.timings,
    ...(record.network === undefined ? {} : { network: record.network }),
    ...(live === undefined
      ? {}
      : {
          vm: live.vm.record,
          ...(live.size === undefined ? {} : { size: live.size }),
          netnsPath: live.vm.netnsPath,
          tap: live.vm.tap,
          agentConnected: live.currentGuest !== undefined,
        }),
    ...(live?.currentGuest === undefined ? {} : { guest: live.currentGuest.info }),
    containers: [...entry.containers].map(({ record: container }) => ({
      id: container.id,
      name: container.config.metadata.name,
      phase: container.phase,
    })),
  };
}

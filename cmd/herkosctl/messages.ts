/** Protobuf messages as plain JSON: 64 bit numbers as strings, enums by name, empty fields shown. */
import { v1 } from '../../lib/cri/api.js';

interface MessageType<Message> {
  toObject(message: Message, options: object): Record<string, unknown>;
}

export function plain<Message>(type: MessageType<Message>, message: Message): Record<string, unknown> {
  return type.toObject(message, {
    longs: String,
    enums: String,
    bytes: String,
    defaults: true,
    arrays: true,
    objects: true,
  });
}

/** The first that says anything. */
export function firstText(...texts: readonly (string | null | undefined)[]): string {
  return texts.find((text) => text !== undefined && text !== null && text !== '') ?? '';
}

/** The JSON inside a verbose answer. */
export function infoOf(info: Readonly<Record<string, string>>): Record<string, unknown> {
  const text = info['info'] ?? info['config'];
  if (text === undefined) return {};
  return JSON.parse(text) as Record<string, unknown>;
}

/** `running`, as `ps` shows it. */
export function stateName(state: v1.ContainerState | null | undefined): string {
  const name =
    (v1.ContainerState as unknown as Readonly<Record<number, string>>)[state ?? 0] ?? 'CONTAINER_UNKNOWN';
  return name.replace('CONTAINER_', '').toLowerCase();
}

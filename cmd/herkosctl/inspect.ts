import { classOf } from '../../lib/base/errors.js';
import { v1 } from '../../lib/cri/api.js';
import { infoOf, plain } from './messages.js';
import type { Session } from './session.js';
import type { Target } from './targets.js';
import { findTarget } from './targets.js';

/** Everything known of a pod, a container or an image. */
export async function inspectCommand(session: Session, text: string): Promise<void> {
  const value = await describe(session, text);
  session.output.result(value, () => {
    for (const line of outline(value)) session.output.line(line);
  });
}

async function describe(session: Session, text: string): Promise<Record<string, unknown>> {
  let target: Target;
  try {
    target = await findTarget(session, text);
  } catch (error) {
    if (classOf(error) !== 'NotFound') throw error;
    const image = await describeImage(session, text);
    if (image === undefined) throw error;
    return image;
  }
  if (target.kind === 'pod') {
    const request = { podSandboxId: target.id, verbose: true };
    const { status, info } = await session.quick(session.rpc.podSandboxStatus, request);
    return {
      kind: 'pod',
      status: plain(v1.PodSandboxStatus, v1.PodSandboxStatus.create(status ?? {})),
      info: infoOf(info),
    };
  }
  const request = { containerId: target.id, verbose: true };
  const { status, info } = await session.quick(session.rpc.containerStatus, request);
  return {
    kind: 'container',
    status: plain(v1.ContainerStatus, v1.ContainerStatus.create(status ?? {})),
    info: infoOf(info),
  };
}

async function describeImage(
  session: Session,
  reference: string,
): Promise<Record<string, unknown> | undefined> {
  const { image, info } = await session.quick(session.rpc.imageStatus, {
    image: { image: reference },
    verbose: true,
  });
  if (!image) return undefined;
  return { kind: 'image', status: plain(v1.Image, v1.Image.create(image)), info: infoOf(info) };
}

/** `key: value` lines, indented like YAML; what is empty is left out. */
export function outline(value: unknown, indent = ''): string[] {
  if (typeof value !== 'object' || value === null) return [`${indent}${scalar(value)}`];
  const entries: (readonly [string, unknown])[] = Array.isArray(value)
    ? value.map((item: unknown) => ['-', item] as const)
    : Object.entries(value);
  return entries.flatMap(([key, item]) => {
    if (isEmpty(item)) return [];
    const label = key === '-' ? '-' : `${key}:`;
    if (typeof item !== 'object') return [`${indent}${label} ${scalar(item)}`];
    return [`${indent}${label}`, ...outline(item, `${indent}  `)];
  });
}

function scalar(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null || value === '') return true;
  return typeof value === 'object' && Object.keys(value).length === 0;
}

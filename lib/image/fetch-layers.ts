/** Everything an image consists of, brought into the layer store: N layers at a time, each of them once. */
import type { Context } from '../base/context.js';
import { throwIfDone, withCancel } from '../base/context.js';
import { HerkosError, classOf, isErrno, wrap } from '../base/errors.js';
import type { Semaphore } from '../base/semaphore.js';
import type { PullListener } from '../cri/ports.js';
import { hexOfDigest } from '../wire/oci/digest.js';
import type { ImageName } from '../wire/oci/types.js';
import { defaultConvertLimits } from './convert/limits.js';
import type { ConvertLimits, LayerConverter } from './convert/types.js';
import { storeFull } from './free-space.js';
import type { DevicePlan, Layer } from './group.js';
import { subdirsOf } from './group.js';
import type { LayerStore } from './layer-store.js';
import type { ImageSource } from './ports.js';
import { ProgressMeter } from './progress.js';
import { transfersPerLayerMax } from './settings.js';

export interface FetchParts {
  readonly store: LayerStore;
  readonly converter: LayerConverter;
  /** One for all pulls. */
  readonly turns: Semaphore;
  readonly limits: Partial<ConvertLimits>;
}

export interface FetchRequest {
  readonly source: ImageSource;
  readonly name: ImageName;
  readonly plan: readonly DevicePlan[];
  readonly progress: PullListener | undefined;
}

/** Keys of the files that a plan makes, those that are only joined into others included. */
export function keysOfPlan(plan: readonly DevicePlan[]): string[] {
  return [...new Set(plan.flatMap((part) => [part.device.key, ...part.layers.map(keyOf)]))];
}

/** The layers of a plan that must be transferred. */
export function layersToFetch(plan: readonly DevicePlan[], store: LayerStore): Layer[] {
  return plan
    .filter((part) => !store.has(part.device.key))
    .flatMap((part) => part.layers.filter((layer) => !store.has(keyOf(layer))));
}

/**
 * Makes every device file of the plan. The first failure stops the others; it settles when all have stopped.
 * The caller has pinned `keysOfPlan`.
 */
export async function fetchLayers(ctx: Context, parts: FetchParts, request: FetchRequest): Promise<void> {
  const meter = new ProgressMeter(request.plan, request.progress);
  const all = withCancel(ctx);
  let first: { readonly error: unknown } | undefined;
  const guarded = async (body: () => Promise<void>): Promise<void> => {
    try {
      await body();
    } catch (error) {
      first ??= { error };
      all.cancel();
    }
  };
  try {
    await Promise.all(
      request.plan.map((part) => guarded(async () => makeDevice(all, parts, request, part, meter, guarded))),
    );
  } finally {
    all.cancel();
  }
  if (first !== undefined) {
    throwIfDone(ctx);
    throw first.error;
  }
}

async function makeDevice(
  ctx: Context,
  parts: FetchParts,
  request: FetchRequest,
  part: DevicePlan,
  meter: ProgressMeter,
  guarded: (body: () => Promise<void>) => Promise<void>,
): Promise<void> {
  const { store } = parts;
  const place = request.name.host;
  const [only] = part.layers;
  if (part.layers.length === 1 && only !== undefined) {
    await store.ensure(ctx, part.device.key, place, async (path, inner) =>
      convertLayer(inner, parts, request, only, path, meter),
    );
    meter.layerDone(only);
    return;
  }
  // Goes on when another pull has the same: it is nearly done, and its layers are shared anyway.
  await store.ensure(ctx, part.device.key, place, async (path) => {
    await Promise.all(
      part.layers.map((layer) =>
        guarded(async () => {
          await store.ensure(ctx, keyOf(layer), place, async (single, inner) =>
            convertLayer(inner, parts, request, layer, single, meter),
          );
          meter.layerDone(layer);
        }),
      ),
    );
    throwIfDone(ctx);
    meter.joining();
    await joinLayers(ctx, parts, part, path);
  });
  for (const layer of part.layers) meter.layerDone(layer);
}

async function joinLayers(ctx: Context, parts: FetchParts, part: DevicePlan, path: string): Promise<void> {
  const files = part.layers.map((layer) => parts.store.pathOf(keyOf(layer)));
  try {
    const limits = limitsOfJoin(parts.limits, files.length);
    const { subdirs } = await parts.converter.join(ctx, { files, destinationPath: path, limits });
    if (subdirs.join('/') !== subdirsOf(files.length).join('/'))
      throw new HerkosError('Internal', 'the converter names joined layers in an unknown way');
  } catch (error) {
    throwIfDone(ctx);
    throw describe(error, `joining ${String(files.length)} layers`);
  }
}

/** The bounds hold for one layer, and each of these has kept them: together they may have as much times their number. */
function limitsOfJoin(limits: Partial<ConvertLimits>, layers: number): Partial<ConvertLimits> {
  const one = { ...defaultConvertLimits, ...limits };
  return { ...one, entriesMax: one.entriesMax * layers, deviceBytesMax: one.deviceBytesMax * layers };
}

async function convertLayer(
  ctx: Context,
  parts: FetchParts,
  request: FetchRequest,
  layer: Layer,
  path: string,
  meter: ProgressMeter,
): Promise<void> {
  await parts.turns.run(ctx, async () => {
    for (let transfer = 1; ; transfer += 1) {
      try {
        await transferLayer(ctx, parts, request, layer, path, meter);
        return;
      } catch (error) {
        throwIfDone(ctx);
        meter.restart(layer);
        if (classOf(error) !== 'DataLoss' || transfer >= transfersPerLayerMax)
          throw describe(error, `layer ${layer.descriptor.digest}`);
      }
    }
  });
}

async function transferLayer(
  ctx: Context,
  parts: FetchParts,
  request: FetchRequest,
  layer: Layer,
  path: string,
  meter: ProgressMeter,
): Promise<void> {
  // Ends the transfer when the conversion ends first, for example because it refuses what it has seen.
  const transfer = withCancel(ctx);
  try {
    const { descriptor } = layer;
    const bytes = request.source.fetchBlob(transfer, request.name, descriptor, { verify: false });
    await parts.converter.convert(ctx, {
      source: meter.count(layer, bytes),
      compression: descriptor.compression,
      expectedDiffId: layer.diffId,
      expectedDigest: descriptor.digest,
      expectedBytes: descriptor.sizeBytes,
      destinationPath: path,
      limits: parts.limits,
    });
  } finally {
    transfer.cancel();
  }
}

/** Says which layer, and keeps first words that the kubelet looks for. */
function describe(error: unknown, doing: string): HerkosError {
  if (isErrno(error, 'ENOSPC') || isErrno(error, 'EDQUOT'))
    return storeFull(`${doing}: the disk is full; make room on it`, error);
  if (error instanceof HerkosError && error.class === 'Unavailable') return error;
  return wrap(error, doing);
}

function keyOf(layer: Layer): string {
  return hexOfDigest(layer.diffId);
}

/** The image that pulls are measured with: more than 300 MB compressed, in eight layers, made of Debian's packages. */
import { background } from '../../lib/base/context.js';
import { layersFromDebianPackages, pushImage } from '../tools/image-builder.js';
import type { PushTarget } from '../tools/image-builder.js';

/** One layer each: thousands of small files (sources, modules), and few large ones (compilers, libraries). */
const layerPackages = [
  'llvm-14-dev',
  'libpython3.11-stdlib',
  'golang-1.19-src',
  'golang-1.19-go',
  'libllvm14',
  'openjdk-17-jre-headless',
  'cpp-12',
  'g++-12',
] as const;

export interface PushedImage {
  readonly reference: string;
  readonly compressedBytes: number;
  readonly layers: number;
}

/** @param host `127.0.0.1:5000`, where `target` is. */
export async function pushBigImage(target: PushTarget, host: string): Promise<PushedImage> {
  const layers = await layersFromDebianPackages(background(), layerPackages);
  await pushImage(target, 'bench/big', 'latest', layers, { Cmd: ['/bin/bash'] });
  return {
    reference: `${host}/bench/big:latest`,
    compressedBytes: layers.reduce((sum, layer) => sum + layer.bytes.length, 0),
    layers: layers.length,
  };
}

/** `guest/build`: makes the guest image. */
import { createHash } from 'node:crypto';
import { mkdir, readFile, readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';

import { Command } from 'commander';

import { writeFileAtomic } from '../lib/base/atomic-file.js';
import { background } from '../lib/base/context.js';
import type { Context } from '../lib/base/context.js';
import { HerkosError, messageOf } from '../lib/base/errors.js';
import { systemExec } from '../lib/base/exec.js';
import { formatBytes } from '../lib/base/units.js';
import { buildAgent } from './agent.js';
import { guestTrees } from './contents.js';
import { writeCpio } from './cpio.js';
import { extractKernel } from './kernel.js';
import { commandLine, fileNames, isUpToDate, manifestName } from './manifest.js';
import type { GuestManifest } from './manifest.js';
import { fetchPackages, resolvePackages, unpackPackages } from './packages.js';
import type { GuestPackages, Package } from './packages.js';
import { rootDeviceFile } from './root-image.js';

/** Where this program was compiled to is three levels below the project. */
const projectRoot = resolve(import.meta.dirname, '../..');
/** The build's own compiled code, whose change is a change of the inputs. */
const codeDirectories = ['dist/guest', 'dist/lib/wire/erofs'];
const fileMode = 0o644;

interface Options {
  readonly out: string;
  readonly cache: string;
  readonly agent?: string;
}

async function build(ctx: Context, options: Options): Promise<void> {
  const agent = await readFile(options.agent ?? (await buildAgent(ctx, systemExec, projectRoot, say)));
  const packages = await resolvePackages(ctx, systemExec);
  const inputs = await digestOfInputs(agent, packages);
  if (await isUpToDate(options.out, inputs)) {
    say(`${options.out} is up to date`);
    return;
  }
  const debs = join(options.cache, 'debs');
  const kernelRoot = join(options.cache, 'kernel');
  const runtimeRoot = join(options.cache, 'runtime');
  say(
    `fetching ${packages.kernel.fileName} and ${String(packages.runtime.length)} packages of the OCI runtime`,
  );
  await fetchPackages(ctx, systemExec, [packages.kernel, ...packages.runtime], debs);
  say('unpacking');
  await unpackPackages(ctx, systemExec, [packages.kernel], debs, kernelRoot);
  await unpackPackages(ctx, systemExec, packages.runtime, debs, runtimeRoot);
  const kernelRelease = await onlyEntry(join(kernelRoot, 'lib/modules'));
  say(`extracting the kernel ${kernelRelease}`);
  const image = await readFile(join(kernelRoot, 'boot', `vmlinuz-${kernelRelease}`));
  const kernel = await extractKernel(ctx, systemExec, image);
  say('writing the images');
  const trees = await guestTrees({ kernelRoot, kernelRelease, runtimeRoot, packages, agent });
  const content = { kernel, initramfs: writeCpio(trees.initramfs), root: rootDeviceFile(trees.root) };
  await write(options.out, { inputs, kernelRelease, agent, packages, content });
}

async function write(
  out: string,
  built: {
    readonly inputs: string;
    readonly kernelRelease: string;
    readonly agent: Buffer;
    readonly packages: GuestPackages;
    readonly content: Readonly<Record<keyof typeof fileNames, Buffer>>;
  },
): Promise<void> {
  await mkdir(out, { recursive: true });
  const place = async (part: keyof typeof fileNames): Promise<GuestManifest['files'][typeof part]> => {
    const name = fileNames[part];
    const data = built.content[part];
    await writeFileAtomic(join(out, name), data, fileMode);
    say(`${join(out, name)}: ${formatBytes(data.length)}`);
    return { name, bytes: data.length, sha256: sha256(data) };
  };
  const all: readonly Package[] = [built.packages.kernel, ...built.packages.runtime];
  const manifest: GuestManifest = {
    schemaVersion: 1,
    inputs: built.inputs,
    kernelRelease: built.kernelRelease,
    commandLine: commandLine.join(' '),
    files: {
      kernel: await place('kernel'),
      initramfs: await place('initramfs'),
      root: await place('root'),
    },
    packages: Object.fromEntries(all.map(({ name, version }) => [name, version])),
    agentSha256: sha256(built.agent),
  };
  // Last: whoever reads a manifest finds the files it describes.
  await writeFileAtomic(join(out, manifestName), `${JSON.stringify(manifest, null, 2)}\n`, fileMode);
}

async function digestOfInputs(agent: Buffer, packages: GuestPackages): Promise<string> {
  const hash = createHash('sha256').update(sha256(agent));
  for (const { fileName, sha256: digest } of [packages.kernel, ...packages.runtime])
    hash.update(`${fileName} ${digest}\n`);
  for (const directory of codeDirectories) {
    const names = await readdir(join(projectRoot, directory));
    for (const name of names.filter((one) => one.endsWith('.js')).sort())
      hash.update(`${name} ${sha256(await readFile(join(projectRoot, directory, name)))}\n`);
  }
  return hash.digest('hex');
}

async function onlyEntry(directory: string): Promise<string> {
  const [name, ...others] = await readdir(directory);
  if (name === undefined || others.length > 0)
    throw new HerkosError('FailedPrecondition', `${directory} does not hold exactly one kernel`);
  return name;
}

function sha256(data: Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

const program = new Command('guest/build')
  .description(
    "Builds the guest image from Debian's packages and the agent; does nothing when it is up to date.",
  )
  .option('--out <directory>', 'where the image goes', join(projectRoot, 'guest/out'))
  .option('--cache <directory>', 'where packages are kept', join(projectRoot, 'build/guest'))
  .option('--agent <file>', "a built agent, instead of building the project's")
  .action(async (options: Options) => {
    try {
      await build(background(), {
        ...options,
        out: resolve(options.out),
        cache: resolve(options.cache),
      });
    } catch (error) {
      process.stderr.write(`guest/build: ${messageOf(error)}\n`);
      process.exitCode = 1;
    }
  });
await program.parseAsync();

import { background } from '../../lib/base/context.js';
import { buildLayer, layersFromDebianPackages, pushImage } from './image-builder.js';
import type { RegistryProcess } from './registry-process.js';
import { buildTar } from './tar-builder.js';

/** Names that the one program of busybox-static is called by. */
const names = [
  ...['cat', 'cmp', 'date', 'dd', 'df', 'echo', 'env', 'false', 'find', 'free', 'grep', 'head', 'hostname'],
  ...['httpd', 'id', 'ip', 'kill', 'ls', 'mkdir', 'mount', 'nc', 'od', 'ping', 'ps', 'rm', 'seq', 'sh'],
  ...['sha256sum', 'sleep', 'sync', 'tail', 'top', 'touch', 'true', 'uname', 'usleep', 'wget', 'yes'],
];

/** Pushes Debian's static busybox, with the names of its programs, as `herkos/example:latest`. */
export async function pushExampleImage(registry: RegistryProcess): Promise<string> {
  const programs = await layersFromDebianPackages(background(), ['busybox-static']);
  const rest = await buildLayer(
    background(),
    buildTar([
      ...names.map((name) => ({ name: `bin/${name}`, type: 'symlink' as const, target: 'busybox' })),
      { name: 'etc/passwd', content: 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' },
      { name: 'etc/group', content: 'root:x:0:\n' },
      { name: 'tmp', type: 'directory', mode: 0o1777 },
    ]),
  );
  await pushImage(registry.target, 'herkos/example', 'latest', [...programs, rest], {
    Env: ['PATH=/usr/local/bin:/usr/bin:/bin'],
    Cmd: ['/bin/sh'],
  });
  return `${registry.host}/herkos/example:latest`;
}

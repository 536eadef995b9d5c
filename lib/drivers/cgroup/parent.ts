import { HerkosError } from '../../base/errors.js';

const parentLengthMax = 1024;
const sliceSuffix = '.slice';

/**
 * The directory below a hierarchy's mountpoint that a cgroup parent names, in the kubelet's two forms:
 *
 *     /kubepods/burstable/pod1234            cgroupfs: as it is
 *     kubepods-burstable-pod1234.slice       systemd: every dash is a level (systemd.slice(5)):
 *                                            /kubepods.slice/kubepods-burstable.slice/kubepods-….slice
 *
 * @returns absolute, without a slash at the end; `/` becomes the empty string
 * @throws HerkosError `InvalidArgument` for anything that could lead elsewhere
 */
export function parentDirectory(parent: string): string {
  const refuse = (why: string): never => {
    throw new HerkosError('InvalidArgument', `cgroup parent '${parent.slice(0, 100)}' ${why}`);
  };
  if (parent.length > parentLengthMax) refuse('is too long');
  if (/[\p{Cc}\\]/u.test(parent)) refuse('holds characters that no cgroup has');
  const parts = parent.split('/').filter((part) => part !== '');
  if (parts.some((part) => part === '.' || part === '..')) refuse('leads elsewhere');
  const [only] = parts;
  if (parts.length === 1 && only?.endsWith(sliceSuffix) === true) {
    const levels = sliceLevels(only.slice(0, -sliceSuffix.length));
    return (levels ?? refuse('is not a slice name')).map((level) => `/${level}`).join('');
  }
  if (!parent.startsWith('/')) refuse('must begin with / or be the name of a slice');
  return parts.map((part) => `/${part}`).join('');
}

function sliceLevels(name: string): string[] | undefined {
  // systemd's name for the root.
  if (name === '-') return [];
  const words = name.split('-');
  if (words.some((word) => word === '')) return undefined;
  return words.map((_, at) => `${words.slice(0, at + 1).join('-')}${sliceSuffix}`);
}

import { readFile } from 'node:fs/promises';

/** Whether something is mounted at `path`, which must be absolute and free of links (proc(5), mountinfo). */
export async function isMounted(path: string): Promise<boolean> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
  return lines.some((line) => line.split(' ')[4] === mountinfoPath(path));
}

/** Blanks, tabs, newlines and backslashes are written in octal. */
function mountinfoPath(path: string): string {
  return path.replace(/[\s\\]/g, (letter) => `\\${letter.charCodeAt(0).toString(8).padStart(3, '0')}`);
}

/** The text format of Prometheus, read as strictly as a scraper does. */

export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const samplePattern = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/;
const labelPattern = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/y;

/** @throws on a line that is neither a comment nor a sample, and on a sample that comes twice */
export function parseMetrics(text: string): Sample[] {
  if (!text.endsWith('\n')) throw new Error('the last line has no end');
  const seen = new Set<string>();
  return text.split('\n').flatMap((line) => {
    if (line === '' || /^# (HELP|TYPE) \S+ \S/.test(line)) return [];
    const match = samplePattern.exec(line);
    const [, name, labels, number] = match ?? [];
    const value = number === '+Inf' ? Infinity : Number(number);
    // A mean of nothing is not a number.
    if (name === undefined || (Number.isNaN(value) && !/^nan$/i.test(number ?? '')))
      throw new Error(`no sample: ${line}`);
    const series = line.slice(0, line.lastIndexOf(' '));
    if (seen.has(series)) throw new Error(`twice: ${series}`);
    seen.add(series);
    return [{ name, labels: parseLabels(labels ?? ''), value }];
  });
}

function parseLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  labelPattern.lastIndex = 0;
  while (labelPattern.lastIndex < text.length) {
    const match = labelPattern.exec(text);
    if (match === null) throw new Error(`no labels: ${text}`);
    labels[match[1] ?? ''] = match[2] ?? '';
  }
  return labels;
}

/** The value of the one sample with this name and, among others, these labels; undefined when there is none. */
export function valueOf(
  samples: readonly Sample[],
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number | undefined {
  const found = samples.filter(
    (sample) =>
      sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value),
  );
  if (found.length > 1) throw new Error(`${String(found.length)} samples of ${name}`);
  return found[0]?.value;
}

/** The straight line through samples that were taken one after the other (least squares). */
export interface Line {
  /** By how much a sample is larger than the one before. */
  readonly perStep: number;
  /** Half the width of the interval that holds the true slope in about 95 of 100 cases. */
  readonly error: number;
}

/** Normal distribution: two-sided, 95 %. */
const normal95 = 1.96;

export function slope(samples: readonly number[]): Line {
  const n = samples.length;
  const meanX = (n - 1) / 2;
  const meanY = samples.reduce((sum, y) => sum + y, 0) / n;
  let xx = 0;
  let xy = 0;
  samples.forEach((y, x) => {
    xx += (x - meanX) ** 2;
    xy += (x - meanX) * (y - meanY);
  });
  const perStep = xy / xx;
  const rest = samples.reduce((sum, y, x) => sum + (y - meanY - perStep * (x - meanX)) ** 2, 0);
  return { perStep, error: n > 2 ? normal95 * Math.sqrt(rest / (n - 2) / xx) : Number.NaN };
}

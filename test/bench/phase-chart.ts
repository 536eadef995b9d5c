/** Where the time of a RunPodSandbox goes, as an SVG: one bar a row, time to the right. */
import type { Phase, PhaseBar } from './bench.js';

/** Runs beside the wait for the guest, not after it: drawn below that, in a lane of its own. */
const besideGuest: readonly string[] = ['network', 'nic'];
const guestPhase = 'guest';
const totalPhase = 'total';
const restPhase = 'other';

const widthPx = 900;
const labelPx = 190;
const valuePx = 80;
const lanePx = 16;
const barPx = 46;
const panelHeadPx = 34;
const legendPx = 40;
/** Bars below this part of the longest are shown once more on a scale of their own. */
const shortPart = 0.25;
/** Told apart also by people who do not see all colours (after Okabe and Ito). */
const colours = ['#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00', '#f0e442', '#7f7f7f'];

interface Piece {
  readonly phase: string;
  readonly fromMs: number;
  readonly ms: number;
  readonly lane: 0 | 1;
}

export function phaseChart(bars: readonly PhaseBar[]): string {
  const longest = Math.max(...bars.map(totalMs));
  const short = bars.filter((bar) => totalMs(bar) < longest * shortPart);
  const panels = [{ title: 'RunPodSandbox to READY, median pod', bars }];
  if (short.length > 0) panels.push({ title: 'the short ones on their own scale', bars: short });
  const phases = [...new Set(bars.flatMap((bar) => pieces(bar).map(({ phase }) => phase)))];
  const colour = (phase: string): string => colours[phases.indexOf(phase) % colours.length] ?? '#000';
  let y = 0;
  const body: string[] = [];
  for (const panel of panels) {
    body.push(text(8, y + 22, panel.title, 'font-weight="bold"'));
    y += panelHeadPx;
    const scale = (widthPx - labelPx - valuePx) / Math.max(...panel.bars.map(totalMs));
    for (const bar of panel.bars) {
      body.push(...drawn(bar, y, scale, colour));
      y += barPx;
    }
  }
  body.push(...legend(phases, y, colour));
  const heightPx = y + legendPx;
  const size = `width="${String(widthPx)}" height="${String(heightPx)}"`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" ${size} viewBox="0 0 ${String(widthPx)} ${String(heightPx)}" font-family="sans-serif" font-size="12">`,
    '<rect width="100%" height="100%" fill="#fff"/>',
    ...body,
    '</svg>',
    '',
  ].join('\n');
}

/** What came one after the other in lane 0, with what nobody measured at its end; the rest in lane 1. */
function pieces({ phases }: PhaseBar): Piece[] {
  const found: Piece[] = [];
  let [main, beside] = [0, 0];
  const place = ({ phase, ms }: Phase, lane: 0 | 1): void => {
    found.push({ phase, fromMs: lane === 0 ? main : beside, ms, lane });
    if (lane === 0) main += ms;
    else beside += ms;
  };
  const inLine = phases.filter(({ phase }) => phase !== totalPhase && !besideGuest.includes(phase));
  const guestAt = inLine.findIndex(({ phase }) => phase === guestPhase);
  beside = inLine.slice(0, Math.max(0, guestAt)).reduce((sum, { ms }) => sum + ms, 0);
  for (const phase of inLine) place(phase, 0);
  for (const phase of phases) if (besideGuest.includes(phase.phase)) place(phase, 1);
  const rest = totalOf(phases) - main;
  if (rest > 0) place({ phase: restPhase, ms: rest }, 0);
  return found;
}

function totalOf(phases: readonly Phase[]): number {
  return phases.find(({ phase }) => phase === totalPhase)?.ms ?? 0;
}

/** Of all bars at least a pixel's worth: a chart of nothing still has a scale. */
function totalMs(bar: PhaseBar): number {
  return Math.max(1, totalOf(bar.phases), ...pieces(bar).map(({ fromMs, ms }) => fromMs + ms));
}

function drawn(bar: PhaseBar, y: number, scale: number, colour: (phase: string) => string): string[] {
  const rects = pieces(bar).map(({ phase, fromMs, ms, lane }) => {
    const place = `x="${px(labelPx + fromMs * scale)}" y="${px(y + lane * lanePx)}"`;
    const size = `width="${px(ms * scale)}" height="${px(lanePx - 1)}"`;
    return `<rect ${place} ${size} fill="${colour(phase)}"><title>${escaped(phase)} ${shown(ms)}</title></rect>`;
  });
  const end = labelPx + totalMs(bar) * scale;
  return [text(8, y + 13, bar.label), ...rects, text(end + 6, y + 13, shown(totalMs(bar)))];
}

function legend(phases: readonly string[], y: number, colour: (phase: string) => string): string[] {
  const step = (widthPx - 16) / Math.max(1, phases.length);
  return phases.flatMap((phase, index) => [
    `<rect x="${px(8 + index * step)}" y="${px(y + 8)}" width="12" height="12" fill="${colour(phase)}"/>`,
    text(8 + index * step + 17, y + 18, besideGuest.includes(phase) ? `${phase} (beside)` : phase),
  ]);
}

function text(x: number, y: number, content: string, more = ''): string {
  return `<text x="${px(x)}" y="${px(y)}" ${more}>${escaped(content)}</text>`;
}

function shown(ms: number): string {
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${ms.toFixed(0)} ms`;
}

function px(value: number): string {
  return value.toFixed(1);
}

function escaped(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
}

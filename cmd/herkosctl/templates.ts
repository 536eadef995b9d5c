import { herkos } from '#gen/admin/v1/api.js';
import { admin } from '#gen/admin/v1/services.js';

import { HerkosError, classOf } from '../../lib/base/errors.js';
import { formatBytes } from '../../lib/base/units.js';
import { defaultDomain } from '../../lib/model/vm.js';
import { beginsId, theOnly } from './lookup.js';
import { plain } from './messages.js';
import { shownAge, shownMs } from './output.js';
import type { Session } from './session.js';

type Template = herkos.admin.v1.Template;
type Progress = herkos.admin.v1.TemplateProgress;

const { Phase } = herkos.admin.v1.TemplateProgress;
const { Role } = herkos.admin.v1.Vm;

export interface BuildOptions {
  /** Empty: the domain of pods that have none. */
  readonly domain: string;
  readonly quiet?: boolean;
}

export async function listTemplatesCommand(session: Session): Promise<void> {
  const templates = await list(session);
  session.output.result(
    templates.map((template) => plain(herkos.admin.v1.Template, template)),
    () => {
      session.output.table(
        ['TEMPLATE', 'DOMAIN', 'VCPUS', 'MEMORY', 'ACCEL', 'BUILT', 'USES', 'MEMORY USED', 'BUILD'],
        templates.map((template) => [
          template.id || '-',
          template.domain,
          String(template.vcpus),
          `${String(template.memoryMib)} MiB`,
          template.accelerator,
          shownAge(template.builtAt),
          String(template.uses),
          formatBytes(Number(template.memoryBytesUsed)),
          phaseName(template.buildPhase) || '-',
        ]),
      );
    },
  );
}

export async function buildTemplateCommand(session: Session, options: BuildOptions): Promise<void> {
  const { domain } = options;
  const stream = session.client.stream(session.ctx, admin.buildTemplate, { domain });
  const last = await watch(session, title(domain), stream, options.quiet ?? false);
  const { templateId: id, existed } = last;
  if (existed && options.quiet !== true)
    session.output.note(`${title(domain)}: there is one already; 'herkosctl template rotate' builds it anew`);
  session.output.result({ id, existed }, () => {
    session.output.line(id);
  });
  if (options.quiet !== true) await noteUnused(session, domain, id);
}

/**
 * A template may well be there before the first pod of its domain. The daemon knows no list of domains, so a mistyped
 * name is taken for such a one, and its template takes memory for nothing.
 */
async function noteUnused(session: Session, domain: string, id: string): Promise<void> {
  if (domain === '' || domain === defaultDomain) return;
  // The template is there, whatever becomes of a hint.
  const answer = await session.slow(admin.listVms, {}).catch(() => undefined);
  if (answer === undefined) return;
  const used = new Set(answer.vms.flatMap((vm) => (vm.role === Role.ROLE_POD ? [vm.domain ?? ''] : [])));
  if (used.has(domain)) return;
  const others = used.size === 0 ? '' : ` (pods here are of ${[...used].sort().join(', ')})`;
  session.output.note(
    `${title(domain)}: this node has no pod of that domain${others}; if the name is wrong: herkosctl template rm ${id}`,
  );
}

export async function rotateTemplateCommand(session: Session, options: BuildOptions): Promise<void> {
  const { domain } = options;
  const stream = session.client.stream(session.ctx, admin.rotateTemplate, { domain });
  const { templateId: id } = await watch(session, title(domain), stream, options.quiet ?? false);
  session.output.result({ id }, () => {
    session.output.line(id);
  });
  if (options.quiet !== true) await noteUnused(session, domain, id);
}

/** @param texts ids or the beginnings of some; with `all` every template of the node */
export async function removeTemplatesCommand(
  session: Session,
  texts: readonly string[],
  all: boolean,
): Promise<void> {
  const known = (await list(session)).flatMap(({ id }) => (id === '' ? [] : [id]));
  // All are found before the first one goes: a mistyped id removes nothing.
  const ids = all ? known : [...new Set(texts.map((text) => find(known, text)))];
  const removed: string[] = [];
  for (const id of ids) {
    try {
      await session.slow(admin.removeTemplate, { id });
      removed.push(id);
    } catch (error) {
      // It went by itself meanwhile.
      if (!all || classOf(error) !== 'NotFound') throw error;
    }
  }
  session.output.result({ removed }, () => {
    for (const id of removed) session.output.line(id);
  });
}

/** After a restart, the daemon reads its templates again before it tells of them. */
async function list(session: Session): Promise<Template[]> {
  return (await session.slow(admin.listTemplates, {})).templates.map((template) =>
    herkos.admin.v1.Template.create(template),
  );
}

function find(known: readonly string[], text: string): string {
  const found = known.filter((id) => beginsId(text, id));
  return theOnly(text, found, { what: 'template', hasNames: false, list: 'template ls' }, String);
}

/** One line a phase on standard error; returns the last message. */
async function watch(
  session: Session,
  what: string,
  stream: AsyncIterable<Progress>,
  quiet: boolean,
): Promise<Progress> {
  const startMs = performance.now();
  let last: Progress | undefined;
  let built = false;
  for await (const progress of stream) {
    last = progress;
    if (progress.phase === Phase.PHASE_DONE) continue;
    built = true;
    if (!quiet) session.output.note(`${what}: ${phaseName(progress.phase)}`);
  }
  if (last?.phase !== Phase.PHASE_DONE)
    throw new HerkosError('Unavailable', `${what}: the daemon ended before the template was complete`);
  if (built && !quiet) session.output.note(`${what}: done in ${shownMs(performance.now() - startMs)}`);
  return last;
}

function title(domain: string): string {
  return `template of domain ${domain || 'default'}`;
}

/** `booting`; empty when there is none. */
function phaseName(phase: herkos.admin.v1.TemplateProgress.Phase): string {
  if (phase === Phase.PHASE_UNSPECIFIED) return '';
  const name = (Phase as unknown as Readonly<Record<number, string>>)[phase] ?? 'working';
  return name.replace('PHASE_', '').toLowerCase();
}

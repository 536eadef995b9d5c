import type { Context } from '../../lib/base/context.js';
import type { Exec, ExecOptions, ExecResult } from '../../lib/base/exec.js';
import { systemExec } from '../../lib/base/exec.js';

export interface RecordedRun {
  readonly program: string;
  readonly args: readonly string[];
  readonly input: string;
}

/** What `ip -json` says of a plain veth with one address. */
export const plainLink = `${JSON.stringify([
  {
    ifname: 'eth0',
    address: '02:00:00:00:00:01',
    mtu: 1400,
    link_type: 'ether',
    flags: ['UP'],
    linkinfo: { info_kind: 'veth' },
    addr_info: [{ local: '10.1.0.5', prefixlen: 16, scope: 'global' }],
  },
])}\n${JSON.stringify([{ type: 'unicast', dst: '10.1.0.0/16', table: 'main', protocol: 'kernel' }])}\n`;

/** Records the network tools and answers for them; runs everything else (fake plugins) for real. */
export class RecordingExec implements Exec {
  readonly runs: RecordedRun[] = [];
  linkOutput = plainLink;
  /** Makes a run of a network tool fail. */
  failWhen: (run: RecordedRun) => Error | undefined = () => undefined;

  async run(
    ctx: Context,
    program: string,
    args: readonly string[],
    options: ExecOptions = {},
  ): Promise<ExecResult> {
    if (program.includes('/')) return systemExec.run(ctx, program, args, options);
    const run = { program, args, input: Buffer.from(options.input ?? '').toString('utf8') };
    this.runs.push(run);
    const failure = this.failWhen(run);
    if (failure !== undefined) throw failure;
    const stdout = args.includes('-json') ? this.linkOutput : '';
    return { exitCode: 0, stdout: Buffer.from(stdout), stderr: Buffer.alloc(0) };
  }
}

import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';

import { Command, Option } from 'commander';

import type { Context } from '../../lib/base/context.js';
import { SocketClient } from '../../lib/cri/client.js';
import { doctorCommand } from './doctor.js';
import { execCommand } from './exec.js';
import { imagesCommand, removeImageCommand } from './images.js';
import { inspectCommand } from './inspect.js';
import { logsCommand } from './logs.js';
import { firstText } from './messages.js';
import {
  collect,
  credentials,
  portMappings,
  positiveNumber,
  size,
  user,
  wholeNumber,
} from './option-values.js';
import type { OutputFormat, OutputStream } from './output.js';
import { Output } from './output.js';
import { psCommand } from './ps.js';
import { importCommand, pullCommand } from './pull.js';
import type { RunOptions } from './run-request.js';
import { runCommand } from './run.js';
import { Session } from './session.js';
import { removeCommand, stopCommand } from './stop.js';
import type { BuildOptions } from './templates.js';
import {
  buildTemplateCommand,
  listTemplatesCommand,
  removeTemplatesCommand,
  rotateTemplateCommand,
} from './templates.js';
import { inspectVmCommand, listVmsCommand } from './vms.js';

export const defaultSocket = '/run/herkos/herkos.sock';
const defaultLogDirectory = '/var/log/herkos';
const graceSecondsDefault = 10;

interface Streams {
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
}

interface GlobalOptions {
  readonly socket: string;
  readonly output: OutputFormat;
}

type Action<Args extends unknown[]> = (session: Session, ...args: Args) => Promise<void>;

/** The command line. `parseAsync` throws CommanderError for wrong usage, and what a command throws. */
export function buildProgram(ctx: Context, streams: Streams): Command {
  const program = new Command('herkosctl')
    .description('runs and inspects pods of the Herkos runtime, each in its own virtual machine')
    .version(packageVersion())
    // Options after the image of `run` belong to the image's command.
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({
      writeOut: (text) => streams.stdout.write(text),
      writeErr: (text) => streams.stderr.write(text),
    });
  const withSession =
    <Args extends unknown[]>(action: Action<Args>) =>
    async (...args: [...Args, Command]): Promise<void> => {
      const { socket, output } = globalOptions(args.at(-1) as Command);
      const client = new SocketClient(resolve(socket.replace(/^unix:(\/\/)?/, '')));
      try {
        const session = new Session(ctx, client, new Output(output, streams.stdout, streams.stderr));
        await action(session, ...(args.slice(0, -1) as Args));
      } finally {
        client.close();
      }
    };
  addRun(program, withSession);
  addPods(program, withSession);
  addImages(program, withSession);
  addTemplates(program, withSession);
  addVms(program, withSession);
  program
    .command('doctor')
    .description('checks whether this node can run pods, and says what to do where it cannot')
    .action(withSession(doctorCommand));
  addGlobalOptions(program);
  return program;
}

type WithSession = <Args extends unknown[]>(
  action: Action<Args>,
) => (...args: [...Args, Command]) => Promise<void>;

/** Every command takes the global options after its name too. */
function addGlobalOptions(command: Command): void {
  command
    .addOption(new Option('--socket <path>', `socket of the daemon; HERKOS_SOCKET or ${defaultSocket}`))
    .addOption(new Option('-o, --output <format>', 'how to answer').choices(['table', 'json']));
  for (const inner of command.commands) addGlobalOptions(inner);
}

/** The one that stands nearest to the arguments wins, then the environment. */
function globalOptions(command: Command): GlobalOptions {
  const chain: Partial<GlobalOptions>[] = [];
  for (let at: Command | null = command; at !== null; at = at.parent) chain.push(at.opts());
  const socket = chain.find((options) => options.socket !== undefined)?.socket;
  const output = chain.find((options) => options.output !== undefined)?.output;
  return {
    socket: firstText(socket, process.env['HERKOS_SOCKET'], defaultSocket),
    output: output ?? 'table',
  };
}

function addRun(program: Command, withSession: WithSession): void {
  program
    .command('run')
    .description('run an image in a new pod with a virtual machine of its own')
    .argument('<image>')
    .argument('[args...]', 'replace the command of the image')
    .option('--name <name>', 'name of the pod; made up when not given')
    .option('--rm', 'remove the pod when its container has ended; not with --detach')
    .option('-d, --detach', 'print the id of the pod and leave it running')
    .addOption(
      new Option('--pull <when>', 'pull the image')
        .choices(['always', 'missing', 'never'])
        .default('missing'),
    )
    .option('--creds <user:password>', 'for the registry; HERKOS_CREDS does the same', credentials)
    .option('-q, --quiet', 'no progress and no times')
    .option('-e, --env <name=value>', 'environment of the command (repeatable)', collect, [])
    .option(
      '-p, --publish <ports>',
      '[ip:]port-of-the-node:port-of-the-pod[/udp] (repeatable)',
      portMappings,
      [],
    )
    .option('-m, --memory <size>', 'memory limit, such as 512MiB', size)
    .option('--cpus <number>', 'processor limit, such as 1.5', positiveNumber)
    .option('-u, --user <user[:group]>', 'run as this user', user)
    .option('-w, --workdir <path>', 'working directory')
    .option('--runtime-handler <name>', 'as a RuntimeClass would name it', '')
    .option('--log-dir <path>', 'where the logs of such pods go', defaultLogDirectory)
    .passThroughOptions()
    .action(
      withSession<[string, string[], RunOptions]>(async (session, image, args, options) =>
        runCommand(session, image, args, { ...options, logDir: resolve(options.logDir) }),
      ),
    );
}

function addPods(program: Command, withSession: WithSession): void {
  program
    .command('ps')
    .description('list pods and containers')
    .option('-a, --all', 'stopped ones too')
    .action(withSession(psCommand));
  program
    .command('exec')
    .description('run a command in a container and pass its exit code on')
    .argument('<target>', 'id or name of a container or pod')
    .argument('<command...>')
    .option('-c, --container <name>', 'which container of the pod')
    .option('-t, --timeout <seconds>', 'kill the command after that time', wholeNumber, 0)
    .passThroughOptions()
    .action(withSession(execCommand));
  program
    .command('logs')
    .description('show the output of a container')
    .argument('<target>', 'id or name of a container or pod')
    .option('-c, --container <name>', 'which container of the pod')
    .option('-f, --follow', 'go on until the container has ended')
    .option('-t, --timestamps', 'begin each line with its time')
    .option('--tail <lines>', 'only the last ones', wholeNumber)
    .action(withSession(logsCommand));
  program
    .command('stop')
    .description('stop pods or containers')
    .argument('<targets...>')
    .option('-t, --time <seconds>', 'between the stop signal and the kill', wholeNumber, graceSecondsDefault)
    .action(withSession(stopCommand));
  program
    .command('rm')
    .description('remove pods or containers')
    .argument('<targets...>')
    .option('-f, --force', 'running ones too')
    .action(withSession(removeCommand));
  program
    .command('inspect')
    .description('show everything that is known of a pod, a container or an image')
    .argument('<target>')
    .action(withSession(async (session: Session, target: string) => inspectCommand(session, target)));
}

function addImages(program: Command, withSession: WithSession): void {
  program.command('images').description('list images').action(withSession(imagesCommand));
  program
    .command('pull')
    .description('pull an image')
    .argument('<image>')
    .option('--creds <user:password>', 'for the registry; HERKOS_CREDS does the same', credentials)
    .option('-q, --quiet', 'no progress')
    .action(withSession(pullCommand));
  const image = program.command('image').description('work on images');
  image.command('ls').description('list images').action(withSession(imagesCommand));
  image
    .command('import')
    .description('take images from an OCI layout, an OCI archive or a docker archive')
    .argument('<path>')
    .option('--name <reference>', 'for an image that has no name in the archive')
    .option('-q, --quiet', 'no progress')
    .action(
      withSession(async (session: Session, path: string, options: { name?: string; quiet?: boolean }) =>
        importCommand(session, resolve(path), options),
      ),
    );
  image
    .command('rm')
    .description('remove images with all their names')
    .argument('<images...>')
    .action(withSession(async (session: Session, names: string[]) => removeImageCommand(session, names)));
}

function addTemplates(program: Command, withSession: WithSession): void {
  const template = program.command('template').description('work on what pods’ machines are cloned from');
  template
    .command('ls')
    .description('list templates, and those that are being built')
    .action(withSession(listTemplatesCommand));
  for (const [name, description, action] of [
    ['build', 'build the template of a domain now, if there is none', buildTemplateCommand],
    ['rotate', 'build it anew; the old one is used until then', rotateTemplateCommand],
  ] as const)
    template
      .command(name)
      .description(description)
      .option('--domain <name>', 'whose pods share it; default: those of no tenant', '')
      .option('-q, --quiet', 'no progress')
      .action(withSession(async (session: Session, options: BuildOptions) => action(session, options)));
  template
    .command('rm')
    .description('remove templates; machines that were made of them go on')
    .argument('[ids...]')
    .option('-a, --all', 'every template of this node')
    .action(async (ids: string[], { all = false }: { all?: boolean }, command: Command) => {
      if (all === ids.length > 0) command.error('error: write the ids of templates, or --all');
      await withSession(async (session: Session) => removeTemplatesCommand(session, ids, all))(command);
    });
}

function addVms(program: Command, withSession: WithSession): void {
  const vm = program.command('vm').description('look at virtual machines, whoever uses them');
  vm.command('ls').description('list all of this node').action(withSession(listVmsCommand));
  vm.command('inspect')
    .description('show everything that is known of a machine')
    .argument('<target>', 'id of the machine or its pod, or the pod’s name')
    .action(withSession(async (session: Session, target: string) => inspectVmCommand(session, target)));
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

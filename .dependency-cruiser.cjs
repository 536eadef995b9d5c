// Who may import whom. The direction is base <- model, wire <- rooms <- cri, stream; drivers stand aside
// and meet the rooms only in cmd. test/arch runs these rules, and proves that each of them can fail.

const rooms = 'pod|image|vm|tenancy|cri|stream';
/** A room's port file: the only file of a room that others may see, and only its types. */
const ports = `^lib/(${rooms}|observe)/ports\\.ts$`;

/** npm packages by the folders that may use them; what is in no list may not be used at all. */
const packages = {
  commander: '^cmd/herkosctl/',
  'smol-toml': '^lib/(config|image|drivers/registry)/',
  zod: '^lib/(config|image|wire|pod|vm|drivers|tenancy)/',
  winston: '^lib/observe/',
  'prom-client': '^lib/observe/',
  undici: '^lib/drivers/registry/',
  fzstd: '^lib/(image|wire)/',
  long: '^(lib/(cri|drivers/guest)|cmd/herkosctl)/',
  protobufjs: '^lib/(cri|drivers/guest)/',
  '@grpc/grpc-js': '^(lib/(cri|drivers/guest)|cmd/herkosctl)/',
};

/** Files in `from` may import, inside lib/, only what matches one of `to`. */
function only(name, from, to, comment) {
  return {
    name,
    comment,
    severity: 'error',
    from: { path: from },
    to: { path: '^(lib|cmd|test)/', pathNot: to },
  };
}

const packageRules = Object.entries(packages).map(([name, from]) => ({
  name: `package-${name}`,
  comment: `${name} is used in ${from} alone, so that it can be replaced there.`,
  severity: 'error',
  from: { path: '^(lib|cmd)/', pathNot: from },
  to: { path: `(^|/)node_modules/${name}/` },
}));

module.exports = {
  forbidden: [
    only('base-knows-no-domain', '^lib/base/', ['^lib/base/'], 'base is below everything.'),
    only(
      'model-is-pure',
      '^lib/model/',
      ['^lib/(base|model)/'],
      'The model knows no format and does no I/O.',
    ),
    only('wire-is-pure', '^lib/wire/', ['^lib/(base|model|wire)/'], 'Formats know no policy.'),
    only('config-knows-values', '^lib/config/', ['^lib/(base|model|config)/'], 'Configuration is values.'),
    only(
      'room-sees-ports',
      `^lib/(${rooms})/`,
      ['^lib/(base|model|wire)/', '^lib/$1/', ports],
      'A room knows what is below it and the ports of other rooms.',
    ),
    only(
      'observe-sees-ports',
      '^lib/observe/',
      ['^lib/(base|model|observe)/', ports],
      'Observation is told, it does not ask.',
    ),
    only(
      'driver-stands-alone',
      '^lib/drivers/([^/]+)/',
      ['^lib/(base|model|wire)/', '^lib/drivers/$1/', ports],
      'A driver implements ports; it knows neither other drivers nor a room.',
    ),
    {
      name: 'ports-are-types',
      comment: 'Ports of another room are imported with `import type`: they promise, they do nothing.',
      severity: 'error',
      from: { path: '^lib/([^/]+)/' },
      to: { path: ports, pathNot: '^lib/$1/', dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'only-main-builds-drivers',
      comment: 'Concrete drivers meet the rooms in cmd and in tests.',
      severity: 'error',
      from: { path: '^lib/', pathNot: '^lib/drivers/' },
      to: { path: '^lib/drivers/' },
    },
    {
      name: 'wire-messages-stay-at-the-border',
      comment: 'Generated messages are for the gRPC handlers, the guest driver and the client.',
      severity: 'error',
      from: { path: '^(lib|cmd)/', pathNot: '^(lib/(cri|drivers/guest)|cmd/herkosctl)/' },
      to: { path: '^gen/' },
    },
    {
      name: 'commands-are-apart',
      severity: 'error',
      from: { path: '^cmd/([^/]+)/' },
      to: { path: '^(cmd|test)/', pathNot: '^cmd/$1/' },
    },
    {
      name: 'no-circle',
      comment: 'Modules that wait for each other at load; types alone never do.',
      severity: 'error',
      from: { path: '^(lib|cmd)/' },
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    {
      name: 'no-unresolved',
      severity: 'error',
      from: { path: '^(lib|cmd|test)/' },
      to: { couldNotResolve: true },
    },
    {
      name: 'no-unlisted-package',
      comment: 'A package is a decision: it stands in package.json and in the table above.',
      severity: 'error',
      from: { path: '^(lib|cmd)/' },
      to: {
        path: '(^|/)node_modules/',
        pathNot: `(^|/)node_modules/(${Object.keys(packages).join('|')}|@types/node)/`,
      },
    },
    ...packageRules,
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    doNotFollow: { path: ['node_modules', '^gen/'] },
    exclude: { path: '^dist/' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      importsFields: ['imports'],
      conditionNames: ['import', 'node', 'default', 'types'],
    },
  },
};

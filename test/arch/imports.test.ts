import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { expect } from 'chai';
import { cruise } from 'dependency-cruiser';
import type { ICruiseOptions, ICruiseResult, IForbiddenRuleType } from 'dependency-cruiser';
import extractTsConfig from 'dependency-cruiser/config-utl/extract-ts-config';

import { projectRoot } from './project.js';

interface Rules {
  readonly forbidden: IForbiddenRuleType[];
  readonly options: ICruiseOptions;
}

const rules = createRequire(import.meta.url)(join(projectRoot, '.dependency-cruiser.cjs')) as Rules;

/** `rule: from -> to` of every import in `folders` below `root` that a rule forbids. */
async function violations(root: string, folders: string[]): Promise<string[]> {
  const result = await cruise(
    folders,
    { ...rules.options, baseDir: root, validate: true, ruleSet: { forbidden: rules.forbidden } },
    {},
    { tsConfig: extractTsConfig(join(projectRoot, 'tsconfig.json')) },
  );
  const { summary } = result.output as ICruiseResult;
  expect(summary.totalCruised, 'files looked at').to.be.greaterThan(0);
  return summary.violations.map(({ rule, from, to }) => `${rule.name}: ${from} -> ${to}`);
}

/** One import that each rule must refuse: the rule, the importing file, its text. */
const forbidden: readonly (readonly [string, string, string])[] = [
  ['base-knows-no-domain', 'lib/base/a.ts', "import '../model/b.js';"],
  ['model-is-pure', 'lib/model/a.ts', "import '../wire/b.js';"],
  ['wire-is-pure', 'lib/wire/a.ts', "import '../pod/b.js';"],
  ['config-knows-values', 'lib/config/a.ts', "import '../pod/b.js';"],
  ['room-sees-ports', 'lib/pod/a.ts', "import '../vm/b.js';"],
  ['room-sees-ports', 'lib/cri/a.ts', "import '../pod/b.js';"],
  ['observe-sees-ports', 'lib/observe/a.ts', "import '../pod/b.js';"],
  ['driver-stands-alone', 'lib/drivers/qemu/a.ts', "import '../guest/b.js';"],
  ['driver-stands-alone', 'lib/drivers/qemu/a.ts', "import '../../vm/b.js';"],
  ['ports-are-types', 'lib/drivers/qemu/a.ts', "import { b } from '../../vm/ports.js'; b();"],
  ['ports-are-types', 'lib/pod/a.ts', "import { b } from '../vm/ports.js'; b();"],
  ['only-main-builds-drivers', 'lib/vm/a.ts', "import '../drivers/qemu/b.js';"],
  ['wire-messages-stay-at-the-border', 'lib/pod/a.ts', "import '../../gen/x/b.js';"],
  ['commands-are-apart', 'cmd/herkosctl/a.ts', "import '../herkosd/b.js';"],
  ['no-circle', 'lib/pod/a.ts', "import './b.js';"],
  ['no-unresolved', 'lib/pod/a.ts', "import './nowhere.js';"],
  ['no-unlisted-package', 'lib/pod/a.ts', "import 'chai';"],
  ['package-undici', 'lib/image/a.ts', "import 'undici';"],
  ['package-@grpc/grpc-js', 'lib/pod/a.ts', "import '@grpc/grpc-js';"],
];

describe('imports', () => {
  it('go the one way that the house allows', async () => {
    expect(await violations(projectRoot, ['lib', 'cmd', 'test'])).to.deep.equal([]);
  }).timeout(120_000);

  for (const [rule, file, text] of forbidden) {
    it(`${rule} refuses ${text} in ${file}`, async () => {
      const root = mkdtempSync(join(tmpdir(), 'herkos-imports-'));
      try {
        for (const folder of ['base', 'model', 'wire', 'pod', 'vm', 'drivers/qemu', 'drivers/guest'])
          write(root, `lib/${folder}/b.ts`, 'export function b(): void {}\n');
        write(root, 'lib/vm/ports.ts', 'export function b(): void {}\n');
        write(root, 'gen/x/b.js', 'export const b = 1;\n');
        write(root, 'cmd/herkosd/b.ts', 'export const b = 1;\n');
        symlinkSync(join(projectRoot, 'node_modules'), join(root, 'node_modules'));
        if (rule === 'no-circle') write(root, 'lib/pod/b.ts', "import './a.js';\nexport const b = 1;\n");
        write(root, file, `${text}\nexport const a = 1;\n`);
        const found = await violations(root, ['lib', 'cmd']);
        expect(found.filter((line) => line.startsWith(`${rule}: ${file} ->`))).to.have.lengthOf(1);
      } finally {
        rmSync(root, { recursive: true });
      }
    }).timeout(60_000);
  }

  it('allows a type of another room’s ports', async () => {
    const root = mkdtempSync(join(tmpdir(), 'herkos-imports-'));
    try {
      write(root, 'lib/vm/ports.ts', 'export interface B { readonly b: number }\n');
      write(
        root,
        'lib/pod/a.ts',
        "import type { B } from '../vm/ports.js';\nexport const a: B = { b: 1 };\n",
      );
      expect(await violations(root, ['lib'])).to.deep.equal([]);
    } finally {
      rmSync(root, { recursive: true });
    }
  }).timeout(60_000);
});

function write(root: string, path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
}

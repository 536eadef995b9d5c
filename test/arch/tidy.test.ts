import { readFileSync, statSync } from 'node:fs';
import { extname, join } from 'node:path';

import { expect } from 'chai';

import { projectFiles, projectRoot } from './project.js';
import { fileLinesMax, functionLinesMax, syntaxProblems, textProblems } from './tidy.js';

/** Not prose and not code: data that others made, kept as they made it. */
const binary = new Set(['.png', '.gz', '.tgz', '.zst', '.tar', '.bin', '.b64', '.img', '.pem']);

describe('tidy', () => {
  const files = projectFiles().filter((path) => !binary.has(extname(path)));

  it('finds the files', () => {
    expect(files).to.include.members(['package.json', 'lib/base/errors.ts', 'hack/codegen']);
  });

  it('finds every text in order', () => {
    const skip = new Set(['package-lock.json', 'agent/Cargo.lock']);
    const problems = files
      .filter((path) => !skip.has(path))
      .flatMap((path) => textProblems(path, readFileSync(join(projectRoot, path), 'utf8')));
    expect(problems).to.deep.equal([]);
  });

  it('finds every program in order', () => {
    const problems = files
      .filter((path) => path.endsWith('.ts'))
      .flatMap((path) => syntaxProblems(path, readFileSync(join(projectRoot, path), 'utf8')));
    expect(problems).to.deep.equal([]);
  });

  it('can start every command in hack', () => {
    const commands = files.filter((path) => /^hack\/[^./]+$/.test(path));
    const dead = commands.filter((path) => (statSync(join(projectRoot, path)).mode & 0o111) === 0);
    expect(dead).to.deep.equal([]);
  });

  describe('rules can fail', () => {
    const cases: readonly (readonly [string, string, string])[] = [
      ['a tab', 'a.ts', 'const a =\t1;\n'],
      ['space at the end', 'a.md', 'word \n'],
      ['an open end', 'a.rs', '// TO' + 'DO: later\n'],
      ["somebody's machine", 'a.ts', "const path = '/wo" + "rk/main';\n"],
      ['package registry', 'hack/x', '#!/bin/sh\ncurl https://registry.np' + 'mjs.org/\n'],
      ['without a #! line', 'hack/x', 'echo\n'],
      [`at most ${String(fileLinesMax)}`, 'a.ts', '//\n'.repeat(fileLinesMax + 1)],
    ];
    for (const [what, path, text] of cases) {
      it(`on ${what}`, () => {
        expect(textProblems(path, text)).to.have.lengthOf(1);
        expect(textProblems(path, text)[0]).to.contain(what);
      });
    }

    it('on the type any', () => {
      expect(syntaxProblems('a.ts', 'let a: an' + 'y;\n')).to.have.lengthOf(1);
    });

    it('on a long function, but not on a suite', () => {
      const body = 'call();\n'.repeat(functionLinesMax);
      expect(syntaxProblems('a.ts', `function f() {\n${body}}\n`)).to.have.lengthOf(1);
      expect(syntaxProblems('a.ts', `describe('x', () => {\n it('y', z);\n${body}});\n`)).to.deep.equal([]);
    });
  });
}).timeout(120_000);

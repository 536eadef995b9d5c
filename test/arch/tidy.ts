/** Rules about how files look, as functions from a file to the sentences that tell what is wrong. */
import ts from 'typescript';

export const fileLinesMax = 400;
export const functionLinesMax = 70;

// Written in pieces: this file must pass its own checks.
const unfinished = new RegExp(`\\b(${['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X'].join('|')})\\b`);
const machinePath = new RegExp(
  `(^|[\\s'"\`(=:])/(${['wo' + 'rk', 'ro' + 'ot', 'ho' + 'me'].join('|')})/[A-Za-z0-9_.]`,
);
// In a guest, the home of its root is nobody's machine.
const guestSide = /^(agent|guest|test\/(integration|suites|e2e))\//;
const guestHome = '/ro' + 'ot/';
const packageHost = new RegExp(
  [
    'registry\\.np' + 'mjs\\.org',
    'static\\.cra' + 'tes\\.io',
    'index\\.cra' + 'tes\\.io',
    'py' + 'pi\\.org',
  ].join('|'),
);

/** Problems of any text file, each as `path:line: what`. */
export function textProblems(path: string, text: string): string[] {
  const problems: string[] = [];
  const source = /\.(ts|rs|md)$/.test(path);
  const lines = text.split('\n');
  const tell = (index: number, what: string): void => {
    problems.push(`${path}:${String(index + 1)}: ${what}`);
  };
  lines.forEach((line, index) => {
    if (source && line.includes('\t')) tell(index, 'a tab');
    if (source && /\s$/.test(line)) tell(index, 'space at the end of the line');
    if (unfinished.test(line)) tell(index, 'an open end: finish it, or open an issue');
    if (machinePath.test(line) && !(guestSide.test(path) && line.includes(guestHome)))
      tell(index, "a path of somebody's machine");
    if (packageHost.test(line)) tell(index, 'the host name of a package registry');
  });
  if (/\.(ts|rs)$/.test(path) && lines.length - 1 > fileLinesMax)
    tell(lines.length - 2, `${String(lines.length - 1)} lines; a file has at most ${String(fileLinesMax)}`);
  if (isScript(path) && !text.startsWith('#!')) tell(0, 'a script without a #! line');
  return problems;
}

/** Problems that only the parsed program shows: long functions and the type that switches checking off. */
export function syntaxProblems(path: string, text: string): string[] {
  const problems: string[] = [];
  const file = ts.createSourceFile(path, text, ts.ScriptTarget.ES2022, true);
  const lineOf = (position: number): number => file.getLineAndCharacterOfPosition(position).line + 1;
  const visit = (node: ts.Node): void => {
    const first = lineOf(node.getStart(file));
    if (node.kind === ts.SyntaxKind.AnyKeyword) problems.push(`${path}:${String(first)}: the type any`);
    const lines = lineOf(node.getEnd()) - first + 1;
    if (isFunction(node) && !isSuite(node) && lines > functionLinesMax)
      problems.push(
        `${path}:${String(first)}: a function of ${String(lines)} lines; at most ${String(functionLinesMax)}`,
      );
    ts.forEachChild(node, visit);
  };
  visit(file);
  return problems;
}

function isFunction(node: ts.Node): boolean {
  return ts.isFunctionLike(node) && 'body' in node && node.body !== undefined;
}

/** The body of a `describe`, or a function that holds suites, is a list of cases and not one thought. */
function isSuite(node: ts.Node): boolean {
  let holdsCases = false;
  const visit = (inner: ts.Node): void => {
    if (ts.isCallExpression(inner) && /^(describe|it)\b/.test(inner.expression.getText())) holdsCases = true;
    if (!holdsCases) ts.forEachChild(inner, visit);
  };
  ts.forEachChild(node, visit);
  return holdsCases;
}

/** Commands are scripts or modules that a script starts. */
function isScript(path: string): boolean {
  return (
    path.endsWith('.sh') || (/^(hack|guest|\.ci)\/([^/]+\/)*[^./]+$/.test(path) && !path.endsWith('/README'))
  );
}

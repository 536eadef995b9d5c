/** Builds docs/errors.md from the program: every `new HerkosError(…)` that carries a reason. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import ts from 'typescript';

import { errorClasses } from '../../lib/base/errors.js';
import type { ErrorClass } from '../../lib/base/errors.js';
import { projectFiles } from './project.js';

export const errorsDocPath = 'docs/errors.md';

export interface DocumentedError {
  readonly reason: string;
  readonly class: ErrorClass;
  /** The message with `<what>` for what is filled in. */
  readonly message: string;
}

const reasonPattern = /^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$/;

/** Errors with a reason in one program text. @throws when a reason is not written as documented ones are */
export function errorsIn(path: string, text: string): DocumentedError[] {
  const file = ts.createSourceFile(path, text, ts.ScriptTarget.ES2022, true);
  const found: DocumentedError[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isNewExpression(node) && node.expression.getText() === 'HerkosError') {
      const [errorClass, message, options] = node.arguments ?? [];
      const reason = options === undefined ? undefined : reasonIn(options);
      if (errorClass !== undefined && message !== undefined && reason !== undefined) {
        if (!reasonPattern.test(reason))
          throw new Error(`${path}: the reason ${reason} is not UPPER_SNAKE_CASE`);
        found.push(
          ...classesIn(errorClass).map((name) => ({ reason, class: name, message: shape(message) })),
        );
      }
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  return found;
}

/** The whole page. */
export function errorsDoc(root: string): string {
  const errors = projectFiles(root)
    .filter((path) => /^(lib|cmd)\/.*\.ts$/.test(path))
    .flatMap((path) => errorsIn(path, readFileSync(join(root, path), 'utf8')));
  const reasons = [...new Set(errors.map(({ reason }) => reason))].sort();
  const classes = Object.entries(errorClasses).map(([name, code]) => `| ${name} | ${String(code)} |`);
  return [
    '# Errors',
    '',
    'This page is generated from the program by `hack/errors-doc`; a test compares the two.',
    '',
    'Every error has a class, which is its gRPC status code, and a message that says what was wrong and, where',
    'the reader can act, what to do. Errors that programs or runbooks may need to tell apart also have a reason:',
    'it stands in the log and in the `herkos-reason` trailer of the gRPC answer, and it never changes its meaning.',
    '',
    '## Classes',
    '',
    '| class | gRPC code |',
    '|---|---|',
    ...classes,
    '',
    '## Reasons',
    '',
    ...(reasons.length === 0 ? ['None yet.', ''] : reasons.flatMap((reason) => section(reason, errors))),
  ].join('\n');
}

function section(reason: string, errors: readonly DocumentedError[]): string[] {
  const mine = errors.filter((error) => error.reason === reason);
  const classes = [...new Set(mine.map((error) => error.class))].sort();
  const messages = [...new Set(mine.map((error) => error.message))].sort();
  return [
    `### ${reason}`,
    '',
    `Class: ${classes.join(', ')}`,
    '',
    ...messages.map((text) => `- \`${text}\``),
    '',
  ];
}

function reasonIn(options: ts.Node): string | undefined {
  if (!ts.isObjectLiteralExpression(options)) return undefined;
  for (const property of options.properties) {
    if (!ts.isPropertyAssignment(property) || property.name.getText() !== 'reason') continue;
    if (ts.isStringLiteralLike(property.initializer)) return property.initializer.text;
  }
  return undefined;
}

/** A class may be chosen by a condition: both are documented. */
function classesIn(node: ts.Expression): ErrorClass[] {
  if (ts.isConditionalExpression(node)) return [...classesIn(node.whenTrue), ...classesIn(node.whenFalse)];
  if (ts.isStringLiteralLike(node) && node.text in errorClasses) return [node.text as ErrorClass];
  return [];
}

function shape(node: ts.Expression): string {
  if (ts.isStringLiteralLike(node)) return node.text.replaceAll('`', "'");
  if (ts.isTemplateExpression(node)) {
    const spans = node.templateSpans.map((span) => `<${nameOf(span.expression)}>${span.literal.text}`);
    return (node.head.text + spans.join('')).replaceAll('`', "'");
  }
  if (ts.isBinaryExpression(node)) return shape(node.left) + shape(node.right);
  return `<${nameOf(node)}>`;
}

/** `String(error.code)` fills in a code. */
function nameOf(node: ts.Expression): string {
  if (ts.isCallExpression(node) && node.arguments[0] !== undefined) return nameOf(node.arguments[0]);
  if (ts.isPropertyAccessExpression(node)) return node.name.text;
  return ts.isIdentifier(node) ? node.text : 'value';
}

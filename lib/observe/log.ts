import winston from 'winston';

import { logLevels } from '../base/logger.js';
import type { LogFields, LogFormat, Logger, LogLevel } from '../base/logger.js';

/** What every line has. */
const ownParts: readonly string[] = ['timestamp', 'level', 'message'];

export interface LogSettings {
  readonly level: LogLevel;
  readonly format: LogFormat;
}

/**
 * Logs to standard error, one line an event: `time level message key=value …`, or JSON. When nobody reads it any
 * more, or the disk that it goes to is full, lines are lost and the process goes on.
 */
export function openLog(settings: LogSettings): Logger {
  outliveReaders();
  const { combine, timestamp, json, printf } = winston.format;
  const root = winston.createLogger({
    level: settings.level,
    format: combine(timestamp(), settings.format === 'json' ? json() : printf(textLine)),
    // eslint-disable-next-line @typescript-eslint/no-unsafe-class-instance-assignment -- winston names the same class by two types
    transports: new winston.transports.Console({ stderrLevels: [...logLevels] }),
  });
  return wrap(root, {});
}

/** An error of a stream that nobody listens to ends the process, and there is no other place to tell of these. */
function outliveReaders(): void {
  for (const stream of [process.stderr, process.stdout])
    if (!stream.listeners('error').includes(ignore)) stream.on('error', ignore);
}

const ignore = (): void => undefined;

function wrap(log: winston.Logger, fixed: LogFields): Logger {
  const at =
    (level: LogLevel) =>
    (message: string, fields: LogFields = {}): void => {
      // One object: winston's other forms drop the fields when there is a `%s` in the message, and join it with a
      // field of the name `message`.
      log.log({ ...apart({ ...fixed, ...fields }), level, message });
    };
  return {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    with: (fields) => wrap(log, { ...fixed, ...fields }),
  };
}

/** The line's own parts keep their names; a field that has one of them is `field.message`. */
function apart(fields: LogFields): LogFields {
  if (!ownParts.some((name) => Object.hasOwn(fields, name))) return fields;
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [ownParts.includes(name) ? `field.${name}` : name, value]),
  );
}

function textLine(info: winston.Logform.TransformableInfo): string {
  const { timestamp, level, message, ...fields } = info;
  const pairs = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => ` ${key}=${textValue(value)}`);
  return `${String(timestamp)} ${level.toUpperCase().padEnd(5)} ${oneLine(String(message))}${pairs.join('')}`;
}

function textValue(value: unknown): string {
  const text = String(value);
  return /^[\w./:@%+,-]+$/.test(text) ? text : JSON.stringify(text);
}

/** A guest's or a program's words may hold line breaks; a log line may not (it could forge another). */
function oneLine(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f]+/g, ' ');
}

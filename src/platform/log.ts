// One JSON line per fact, on standard output. Nothing a caller wrote (payloads, tokens) is ever logged.
import pino, { type Logger } from "pino";

/** Where a part of the node writes its facts. */
export type Log = Logger;

/** A log whose lines carry `name`, the part of the node that speaks. */
export function openLog(name: string, level: string): Log {
  const timestamp = pino.stdTimeFunctions.isoTime;
  return pino({ name, level, base: null, timestamp, serializers: { err: withoutRows } });
}

// Postgres quotes the row or the JSON at fault, and with it what a caller wrote, in these two fields.
function withoutRows(error: Error): object {
  const { detail: _row, where: _context, ...shown } = pino.stdSerializers.err(error);
  return shown;
}

// One JSON line per fact, on standard output. Nothing a caller wrote (payloads, tokens) is ever logged.
import pino, { type Logger } from "pino";

/** Where a part of the node writes its facts. */
export type Log = Logger;

/** A log whose lines carry `name`, the part of the node that speaks. */
export function openLog(name: string, level: string): Log {
  return pino({ name, level, base: null, timestamp: pino.stdTimeFunctions.isoTime });
}

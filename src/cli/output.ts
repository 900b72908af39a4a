// Data goes to standard output, talk to standard error; whoever reads either may go away at any time.
import { styleText } from "node:util";
import { environment } from "../config.ts";

type Style = "bold" | "dim" | "green" | "red" | "yellow";

const waitingCharactersMax = 1024 * 1024;
let waitingCharacters = 0;
const flushWaiters: (() => void)[] = [];

/** Prints one line of data. */
export function print(line: string): void {
  const { length } = line;
  waitingCharacters += length;
  process.stdout.write(`${line}\n`, () => {
    waitingCharacters -= length;
    if (waitingCharacters > 0) return;
    for (const resolve of flushWaiters.splice(0)) resolve();
  });
}

/** Says one line to the person who waits. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** Emphasis on standard output: on a terminal only, and not with NO_COLOR (no-color.org). */
export function paint(style: Style, text: string): string {
  return process.stdout.isTTY && !environment()["NO_COLOR"] ? styleText(style, text) : text;
}

/**
 * Ends the process in peace once nobody reads its data any more, as in `chat4all tail | head`. When nobody listens
 * to its talk, it goes on: a node must not die of that.
 */
export function endWithReader(): void {
  const isClosedPipe = (error: NodeJS.ErrnoException) => error.code === "EPIPE";
  process.stdout.on("error", (error) => {
    if (isClosedPipe(error)) process.exit(0);
    throw error;
  });
  process.stderr.on("error", (error) => {
    if (!isClosedPipe(error)) throw error;
  });
}

/** Whether more waits to be read than a reader that keeps up would leave. */
export function isReaderBehind(): boolean {
  return waitingCharacters > waitingCharactersMax;
}

/** Resolves when all that was printed has left the process, which must not exit before. */
export function flushed(): Promise<void> {
  if (waitingCharacters === 0) return Promise.resolve();
  return new Promise((resolve) => flushWaiters.push(resolve));
}

/**
 * Text of somebody else, safe on a terminal: control characters (which could move the cursor, or type for the
 * reader) and the marks that reorder a line are shown by their code points.
 */
export function visible(text: string): string {
  return text.replaceAll(
    /[\p{Cc}\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu,
    (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`,
  );
}

/** What a URL points to, without its user, password and parameters. */
export function placeOf(url: string): string {
  return url.replace(/^[a-z+]+:\/\/(.*@)?/i, "").replace(/\?.*$/, "");
}

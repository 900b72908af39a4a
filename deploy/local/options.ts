// The options of a program that is called by hand.
import { type ParseArgsOptionsConfig, parseArgs } from "node:util";

type Values<Defaults> = {
  [Name in keyof Defaults]: Defaults[Name] extends number
    ? number
    : Defaults[Name] extends boolean
      ? boolean
      : string;
};

/**
 * Each option is of its default's kind: a number that is not negative, a text, or a flag. `--help` prints that text
 * and ends the process with 0. What is no option or no number, or what `check` throws on, ends it with 2, a line on
 * what is wrong, and the text.
 */
export function readOptions<const Defaults extends Record<string, number | string | boolean>>(
  help: string,
  defaults: Defaults,
  check: (values: Values<Defaults>) => void = () => undefined,
): Values<Defaults> {
  const options: ParseArgsOptionsConfig = { help: { type: "boolean", short: "h" } };
  for (const [name, value] of Object.entries(defaults))
    options[name] = { type: typeof value === "boolean" ? "boolean" : "string" };
  try {
    const { values } = parseArgs({ options });
    if (values["help"] === true) {
      console.log(help);
      process.exit(0);
    }
    const read = Object.entries(defaults).map(([name, fallback]) => {
      const given = values[name] ?? fallback;
      return [name, typeof fallback === "number" ? numberOf(name, String(given)) : given];
    });
    const complete: Values<Defaults> = Object.fromEntries(read);
    check(complete);
    return complete;
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${help}`);
    process.exit(2);
  }
}

function numberOf(name: string, text: string): number {
  if (!/^\d+(\.\d+)?$/.test(text)) throw new Error(`--${name} ${text} is no number`);
  return Number(text);
}

/** For `check`: throws unless the option is a whole number from 1 to `most`. */
export function checkWhole(name: string, value: number, most: number): void {
  if (!Number.isInteger(value) || value < 1 || value > most)
    throw new Error(`--${name} is a whole number from 1 to ${most}`);
}

/** One that nobody chose, to be shown, so that the run can be repeated. */
export function drawSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
}

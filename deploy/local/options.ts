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
 * and ends the process with 0; what is no option, or no number, ends it with 2, a line on what is wrong, and the text.
 */
export function readOptions<const Defaults extends Record<string, number | string | boolean>>(
  help: string,
  defaults: Defaults,
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
      return [name, typeof fallback === "number" ? numberOf(name, given) : given];
    });
    return Object.fromEntries(read);
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${help}`);
    process.exit(2);
  }
}

function numberOf(name: string, given: unknown): number {
  const number = given === "" ? Number.NaN : Number(given);
  if (!(number >= 0 && number < Number.POSITIVE_INFINITY))
    throw new Error(`--${name} ${String(given)} is no number`);
  return number;
}

/** One that nobody chose, to be shown, so that the run can be repeated. */
export function drawSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
}

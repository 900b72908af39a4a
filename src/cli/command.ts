// A command is a table of options and a function; parsing, help texts and usage errors all come from the table.
import { parseArgs } from "node:util";

/** One flag. `value` names what a string option takes in the help text. */
export type Option =
  | { type: "string"; value: string; help: string; default?: string }
  | { type: "boolean"; help: string };

export type Options = Record<string, Option>;

type Values<O extends Options> = {
  [Name in keyof O]: O[Name] extends { type: "boolean" } ? boolean : string | undefined;
};

/** What a command is given: its options (a boolean that is not there is false) and the words between them. */
export interface Arguments<O extends Options> {
  values: Values<O>;
  words: string[];
}

/** What a command is, for its author. */
export interface CommandTable<O extends Options> {
  summary: string;
  /** The words it takes, as its usage line shows them, and how many at most. */
  words?: { usage: string; max: number };
  options: O;
  /** What one has to know beyond the options. */
  details?: string;
  /** Lines to paste, without `chat4all`. */
  examples: string[];
  run(args: Arguments<O>): Promise<void>;
}

/** What a command is, for who runs it: `args` are the command line's after the command's name. */
export interface Command {
  summary: string;
  help(name: string): string;
  /** Throws UsageError for what the table does not allow, and whatever the command itself throws. */
  run(args: string[]): Promise<void>;
}

/** The command line is not as the help says: exit code 2. */
export class UsageError extends Error {}

/** Option of every command that prints data. */
export const jsonOption = { json: { type: "boolean", help: "Print JSON, and errors as JSON too." } } as const;

const helpOption = { help: { type: "boolean", help: "Show this text." } } as const;

/** Makes a command of its table. */
export function defineCommand<const O extends Options>(table: CommandTable<O>): Command {
  return {
    summary: table.summary,
    help: (name) => helpText(name, table),
    run: (args) => table.run(parse(table, args)),
  };
}

/** The value of an option that takes a whole number, within its bounds; throws UsageError otherwise. */
export function wholeNumber(option: string, text: string | undefined, maximum: number): number | undefined {
  if (text === undefined) return undefined;
  const number = Number(text);
  if (!/^\d+$/.test(text) || number > maximum)
    throw new UsageError(`${option} takes a number from 0 to ${maximum}`);
  return number;
}

function parse<O extends Options>(table: CommandTable<O>, args: string[]): Arguments<O> {
  const max = table.words?.max ?? 0;
  const { values, positionals } = parseStrictly(table.options, args);
  const surplus = positionals[max];
  if (surplus !== undefined) throw new UsageError(`unexpected "${surplus}"`);
  for (const [name, option] of Object.entries(table.options)) {
    if (option.type === "boolean") values[name] ??= false;
  }
  return { values: values as Values<O>, words: positionals };
}

function parseStrictly(options: Options, args: string[]) {
  try {
    const { values, positionals } = parseArgs({ args, options, allowPositionals: true, strict: true });
    return { values: { ...values } as Record<string, unknown>, positionals };
  } catch (error) {
    // Node's messages go on with advice of their own after the first sentence.
    const [sentence = ""] = (error as Error).message.split(/\. |\n/);
    throw new UsageError(sentence.charAt(0).toLowerCase() + sentence.slice(1));
  }
}

function helpText<O extends Options>(name: string, table: CommandTable<O>): string {
  const words = table.words === undefined ? "" : ` ${table.words.usage}`;
  const options: [string, string][] = Object.entries({ ...table.options, ...helpOption }).map(
    ([flag, option]) => [
      option.type === "string" ? `--${flag} ${option.value}` : `--${flag}`,
      option.type === "string" && option.default !== undefined
        ? `${option.help} (${option.default})`
        : option.help,
    ],
  );
  const sections = [
    table.summary,
    `Usage: chat4all ${name}${words} [options]`,
    `Options:\n${columns(options)}`,
    ...(table.details === undefined ? [] : [table.details]),
    `Examples:\n${table.examples.map((example) => `  chat4all ${example}`).join("\n")}`,
  ];
  return sections.join("\n\n");
}

/** Two columns, the first as wide as its widest entry. */
export function columns(rows: [string, string][]): string {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`).join("\n");
}

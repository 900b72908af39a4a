// A run as people read it: the verdict, the recovery times, the totals; as a table for a terminal or for a document.
import { emphasise } from "../../deploy/local/terminal.ts";
import { guarantees, type Judgement } from "./checker/judgement.ts";
import type { Effect, Recovery } from "./recovery.ts";
import type { RunResult } from "./run.ts";

/** How it is written. */
export interface ReportOptions {
  markdown: boolean;
  /** The command that repeats the run. */
  command: string;
}

/** A table: the first row has the names of the columns. */
type Table = string[][];

/** Whether every guarantee held. */
export function isGreen({ judgements }: RunResult): boolean {
  return judgements.every(({ violations }) => violations === 0);
}

/** All of it, as text. */
export function reportOf(result: RunResult, { markdown, command }: ReportOptions): string {
  const write = markdown ? asMarkdown : asText;
  const heading = (text: string) => (markdown ? `### ${text}` : emphasise(text));
  const parts = [
    heading("Verdict"),
    write(verdictTable(result.judgements)),
    ...result.judgements.flatMap((one) => violationLines(one, markdown)),
    heading("What each fault did"),
    write(effectTable(result.effects)),
    "Accept and live: the worst while the fault was there (accept: by the instances that were not its target). Backlog: " +
      "how old the oldest event in the outbox was. Recovery: from the fault's end until all was as before (>: the next " +
      "fault came before that); median and worst. All in seconds; faults that overlapped stand together.",
    heading("Totals"),
    write([
      ["what", "count"],
      ...Object.entries(result.totals).map(([what, count]) => [what, counted(count)]),
    ]),
    `Again with: ${markdown ? `\`${command}\`` : command}`,
  ];
  return `${parts.join("\n\n")}\n`;
}

function verdictTable(judgements: readonly Judgement[]): Table {
  return [
    ["guarantee", "checked", "violations"],
    ...judgements.map(({ guarantee, checked, violations }) => [
      guarantees[guarantee],
      counted(checked),
      violations === 0 ? "0" : `${violations} !`,
    ]),
  ];
}

function violationLines({ guarantee, violations, shown }: Judgement, markdown: boolean): string[] {
  if (violations === 0) return [];
  const more = violations > shown.length ? [`and ${violations - shown.length} more like these`] : [];
  const title = `${violations} times not so: ${guarantees[guarantee]}`;
  const lines = [...shown, ...more].map((text) => `${markdown ? "- " : "  "}${text}`);
  return [[markdown ? title : emphasise(title, "red"), ...lines].join("\n")];
}

function effectTable(effects: readonly Effect[]): Table {
  const rows = [...Map.groupBy(effects, ({ what }) => what)].toSorted(([one], [other]) =>
    one < other ? -1 : 1,
  );
  return [
    [
      "fault",
      "times",
      "accept",
      "live",
      "backlog",
      "taken over",
      "accept again",
      "live again",
      "publish again",
      "route again",
    ],
    ...rows.map(([what, list]) => {
      return [
        what,
        String(list.length),
        worstOf(list.map(({ during }) => during.acceptMs)),
        worstOf(list.map(({ during }) => during.liveMs)),
        worstOf(list.map(({ during }) => during.outboxMs)),
        spreadOf(
          list.flatMap(({ takenOverMs }) =>
            takenOverMs === undefined ? [] : { afterMs: takenOverMs, isSeen: true },
          ),
        ),
        spreadOf(list.map(({ recovered }) => recovered.accept)),
        spreadOf(list.map(({ recovered }) => recovered.live)),
        spreadOf(list.map(({ recovered }) => recovered.publish)),
        spreadOf(list.map(({ recovered }) => recovered.route)),
      ];
    }),
  ];
}

function worstOf(values: readonly (number | undefined)[]): string {
  const known = values.filter((value) => value !== undefined);
  return known.length === 0 ? "-" : inSeconds(Math.max(...known));
}

/** The median and the worst. */
function spreadOf(times: readonly Recovery[]): string {
  if (times.length === 0) return "-";
  const sorted = times.toSorted((one, other) => one.afterMs - other.afterMs);
  const written = sorted.map(({ afterMs, isSeen }) => `${isSeen ? "" : ">"}${inSeconds(afterMs)}`);
  const worstPlace = sorted.findLastIndex(({ isSeen }) => !isSeen);
  return `${written[Math.floor((sorted.length - 1) / 2)]} ${written.at(worstPlace)}`;
}

function inSeconds(ms: number): string {
  return Number.isFinite(ms) ? (ms / 1000).toFixed(2) : "refused";
}

function counted(count: number): string {
  return count.toLocaleString("en");
}

function asMarkdown([head = [], ...rows]: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map((_, index) => (index === 0 ? "---" : "---:"))), ...rows.map(line)].join(
    "\n",
  );
}

function asText(table: Table): string {
  const widths = (table[0] ?? []).map((_, column) =>
    Math.max(...table.map((row) => row[column]?.length ?? 0)),
  );
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join("  ");
  const [head = [], ...rows] = table;
  return [emphasise(line(head), "dim"), ...rows.map(line)].join("\n");
}

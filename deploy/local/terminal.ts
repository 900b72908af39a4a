/** What a person sees while waiting: one line for each thing under way, rewritten in place where that is possible. */
import { styleText } from "node:util";

/** Takes lines like `Kafka: starting`; what stands before the colon names the thing that moved on. */
export interface Progress {
  report(line: string): void;
  /** Ends the block of lines: what is written from now on stands below it. */
  end(): void;
}

/** On a terminal the lines form a block that is redrawn; elsewhere each is printed once, and a mere counting-up is not. */
export function showProgress(stream: NodeJS.WriteStream = process.stdout): Progress {
  return stream.isTTY ? redrawnProgress(stream) : printedProgress(stream);
}

/** Emphasis, on a terminal only. */
export function emphasise(text: string, style: "bold" | "dim" | "green" | "red" = "bold"): string {
  return process.stdout.isTTY ? styleText(style, text) : text;
}

function redrawnProgress(stream: NodeJS.WriteStream): Progress {
  const lines = new Map<string, string>();
  return {
    report(line) {
      const up = lines.size === 0 ? "" : `\x1b[${lines.size}A`;
      lines.set(subjectOf(line), line);
      // Cut to the width: a line that wraps would be two, and the way up wrong.
      const block = [...lines.values()].map((text) => `\x1b[2K${text.slice(0, stream.columns - 1)}\n`);
      stream.write(up + block.join(""));
    },
    end: () => lines.clear(),
  };
}

function printedProgress(stream: NodeJS.WriteStream): Progress {
  const lastSeen = new Map<string, string>();
  return {
    report(line) {
      const withoutNumbers = line.replaceAll(/\d+/g, "");
      if (lastSeen.get(subjectOf(line)) === withoutNumbers) return;
      lastSeen.set(subjectOf(line), withoutNumbers);
      stream.write(`${line}\n`);
    },
    end: () => lastSeen.clear(),
  };
}

function subjectOf(line: string): string {
  return line.split(":")[0] ?? line;
}

// What is seen while a run goes on: on a terminal a block that is redrawn in place, elsewhere a line now and then.
import { type Progress, showProgress } from "../../deploy/local/terminal.ts";

const everyMs = 10_000;

/** Takes lines like `running: 12 of 60 s, …`. */
export function showRun(stream: NodeJS.WriteStream): Progress {
  const progress = showProgress(stream);
  if (stream.isTTY) return progress;
  const lastAtMs = new Map<string, number>();
  return {
    report(line) {
      const subject = line.split(":")[0] ?? line;
      // The steady ones only; each of the others is news.
      if (subject !== "running" && subject !== "settling") return progress.report(line);
      const nowMs = performance.now();
      if (nowMs - (lastAtMs.get(subject) ?? Number.NEGATIVE_INFINITY) < everyMs) return;
      lastAtMs.set(subject, nowMs);
      stream.write(`${line}\n`);
    },
    end: progress.end,
  };
}

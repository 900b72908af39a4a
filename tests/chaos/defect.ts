// A seam of tests only: a node whose code, or whose functions in the database, have a fault that a test put there.
// The code is changed as it is loaded, so that nothing of this is in the code itself.
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";

/** A fault that is put into the server on purpose. */
export interface Defect {
  name: string;
  /** In files, named from the project's root: the text `from`, which must be there exactly once, becomes `to`. */
  changes: { file: string; from: string; to: string }[];
  /** Run on the database once it is migrated, for example `create or replace function …`. */
  sql?: string;
}

const root = resolve(import.meta.dir, "../..");

/** Makes this thread load the changed text of the defect's files; call it before anything of `src/` is imported. */
export function installDefect({ name, changes }: Defect): void {
  const files = [...new Set(changes.map(({ file }) => join(root, file)))];
  if (files.length === 0) return;
  const filter = new RegExp(`^(${files.map((file) => RegExp.escape(file)).join("|")})$`);
  Bun.plugin({
    name: `defect ${name}`,
    setup(build) {
      build.onLoad({ filter }, ({ path }) => {
        const text = changedText(path, { name, changes });
        return path.endsWith(".sql")
          ? { contents: `export default ${JSON.stringify(text)};`, loader: "js" }
          : { contents: text, loader: "ts" };
      });
    },
  });
}

/**
 * The text of a file with the defect's changes.
 * @throws when a `from` is not in it exactly once: the code has moved on, and the defect would prove nothing.
 */
export function changedText(path: string, { name, changes }: Defect): string {
  let text = readFileSync(path, "utf8");
  for (const { file, from, to } of changes) {
    if (join(root, file) !== path) continue;
    const found = text.split(from).length - 1;
    if (found !== 1) throw new Error(`defect ${name}: ${found} times in ${file}, not once: ${from}`);
    text = text.replace(from, () => to);
  }
  return text;
}

/** What no other tool looks for: traces of one machine in the repository, and SQL that nothing imports. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { OperatingError } from "../../../src/model/errors.ts";

/** Answers one line for each fault in the files that git tracks or would track. */
export function untidyFiles(root: string): string[] {
  const texts = new Map(textFiles(root).map((file) => [file, readFileSync(join(root, file), "utf8")]));
  const faults: string[] = [];
  for (const [file, text] of texts) {
    for (const { pattern, fault } of banned) {
      for (const match of text.matchAll(pattern)) {
        const line = text.slice(0, match.index).split("\n").length;
        faults.push(`${file}:${line}: ${fault}: ${match[0]}`);
      }
    }
  }
  const code = [...texts].filter(([file]) => file.endsWith(".ts")).map(([, text]) => text);
  for (const file of texts.keys()) {
    if (!file.startsWith("sql/") || !file.endsWith(".sql") || file === "sql/schema.sql") continue;
    if (!code.some((text) => text.includes(`/${file}"`))) faults.push(`${file}: nothing imports it`);
  }
  return faults;
}

// Described by their shape: a list of names would be what it forbids.
const banned = [
  {
    fault: "host name of a package registry or a mirror",
    pattern:
      /\b(?:registry|repo\d*|pypi|npm|proxy|mirrors?|artifactory|nexus|packages|archive|central)\.(?:[a-z0-9-]+\.)+(?:org|com|io|net|dev|internal)\b/gi,
  },
  {
    fault: "absolute path of one machine",
    pattern: /(?<![\w./:~-])\/(?:home|root|Users|work|tmp|mnt)\/[\w.-]+/g,
  },
];

function textFiles(root: string): string[] {
  const command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"];
  const git = Bun.spawnSync(command, { cwd: root });
  if (!git.success) throw new OperatingError("not_a_clone", { message: git.stderr.toString().trim() });
  const files = git.stdout.toString().split("\0").filter(Boolean);
  return files.filter((file) => !/\.(?:png|jpg|ico|gif|woff2?)$/.test(file) && existsSync(join(root, file)));
}

/**
 * `bun run build`: dist/chat4all, one file with the server, its workers, the SQL and the docs page inside.
 * `--target bun-linux-arm64` (or another of Bun's) builds for another machine, `--outfile PATH` to another place.
 */
import { mkdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { workerNames } from "../workers/protocol.ts";

const root = resolve(import.meta.dir, "..");
const { values } = parseArgs({
  options: { target: { type: "string" }, outfile: { type: "string", default: join(root, "dist/chat4all") } },
});
const outfile = resolve(values.outfile);
mkdirSync(dirname(outfile), { recursive: true });

const result = await Bun.build({
  root,
  entrypoints: [join(root, "src/main.ts"), ...workerNames.map((name) => join(root, `workers/${name}.ts`))],
  compile: {
    outfile,
    ...(values.target === undefined ? {} : { target: values.target as Bun.Build.CompileTarget }),
    // The environment is what the process was given, wherever it is started.
    autoloadDotenv: false,
    autoloadBunfig: false,
  },
  // Names are kept: they are in stack traces and in libraries' checks.
  minify: { whitespace: true, syntax: true },
  define: {
    BUILD_COMMIT: JSON.stringify(commit()),
    "process.env.NODE_ENV": JSON.stringify("production"),
  },
  throw: false,
});
for (const log of result.logs) console.error(log);
if (!result.success) process.exit(1);
console.log(`${outfile} (${Math.round(Bun.file(outfile).size / 1_000_000)} MB)`);

/** BUILD_COMMIT where there is no repository (in a container's build), else git's HEAD. */
function commit(): string {
  const given = process.env["BUILD_COMMIT"];
  if (given) return given;
  if (Bun.which("git") === null) return "unknown";
  const git = Bun.spawnSync(["git", "rev-parse", "--short=12", "HEAD"], { cwd: root, stderr: "ignore" });
  return git.success ? git.stdout.toString().trim() : "unknown";
}

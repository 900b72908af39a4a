// Where a worker thread's program is, from sources and in the compiled binary.
import type { WorkerName } from "../../workers/protocol.ts";
import { isCompiled } from "../version.ts";

/**
 * What to give to `new Worker`. In the binary each module's `import.meta.url` is the bundle's root, and a path is
 * taken from there; from sources a path would be taken from the working directory.
 */
export function workerUrl(name: WorkerName): string | URL {
  return isCompiled ? `./workers/${name}.ts` : new URL(`../../workers/${name}.ts`, import.meta.url);
}

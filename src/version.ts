// Which build this is. The build defines BUILD_COMMIT; run from sources there is none.
import { version } from "../package.json" with { type: "json" };

declare const BUILD_COMMIT: string | undefined;

/** Whether this runs from the compiled binary, where there are no source files. */
export const isCompiled = typeof BUILD_COMMIT === "string";

/** Version of the package, and the git commit that it was built from ("sources" when it was not built). */
export const build = {
  version,
  commit: typeof BUILD_COMMIT === "string" ? BUILD_COMMIT : "sources",
} as const;

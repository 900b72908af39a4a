// Files that the bundler takes in as they are.

/** `import text from "./x.sql" with { type: "text" }`: the file's text. */
declare module "*.sql" {
  const text: string;
  export default text;
}

/** `import path from "…/standalone.js" with { type: "file" }`: where the file is, in the binary too. */
declare module "*/standalone.js" {
  const path: string;
  export default path;
}

/** The same of a script for Redis. */
declare module "*.lua" {
  const text: string;
  export default text;
}

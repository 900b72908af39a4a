// Files that the bundler takes in as they are.

/** `import text from "./x.sql" with { type: "text" }`: the file's text. */
declare module "*.sql" {
  const text: string;
  export default text;
}

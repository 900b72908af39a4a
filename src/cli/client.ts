// Makes a client straight in Postgres: the first one can not be made through the API, which needs one.
import { readVariables } from "../config.ts";
import { scopes as knownScopes, type Scope } from "../identity/caller.ts";
import { createClient as storeClient } from "../identity/clients.ts";
import { defineCommand, jsonOption, UsageError } from "./command.ts";
import { readServerVariables } from "./connection.ts";
import { withPostgres } from "./database.ts";
import { print, say } from "./output.ts";

export const createClient = defineCommand({
  summary: "Make a client in the database; its secret is shown once",
  options: {
    name: { type: "string", value: "NAME", help: "What it is called, for people." },
    scope: { type: "string", value: '"S …"', help: "What it may do.", default: knownScopes.join(" ") },
    ...jsonOption,
  },
  details: "Needs DATABASE_URL only. The secret is stored as a hash, so that it can not be shown again.",
  examples: [
    'client create --name "Shop backend"',
    'client create --name reader --scope "messages:read" --json',
  ],
  async run({ values }) {
    const { name } = values;
    if (!name) throw new UsageError("--name is missing");
    const scopes = parseScopes(values.scope ?? knownScopes.join(" "));
    const { DATABASE_URL } = readVariables(["DATABASE_URL"], readServerVariables());
    const { id, secret } = await withPostgres(DATABASE_URL, (postgres) =>
      storeClient(postgres, { name, scopes }),
    );
    const scope = scopes.join(" ");
    if (values.json) print(JSON.stringify({ client_id: id, client_secret: secret, name, scope }));
    else print(`client_id      ${id}\nclient_secret  ${secret}\nscope          ${scope}`);
    say("Keep the secret: it is not shown again.");
  },
});

function parseScopes(text: string): Scope[] {
  return text
    .split(/\s+/)
    .filter(Boolean)
    .map((word) => {
      const scope = knownScopes.find((known) => known === word);
      if (scope === undefined)
        throw new UsageError(`unknown scope "${word}" (there are ${knownScopes.join(", ")})`);
      return scope;
    });
}

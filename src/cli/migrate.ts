// Brings the database and the topics to what this build needs; may run any number of times, and at once.
import { readConfig } from "../config.ts";
import { migrate as applyMigrations, schemaVersion } from "../platform/migrate.ts";
import { defineCommand, jsonOption } from "./command.ts";
import { readServerVariables } from "./connection.ts";
import { withPostgres } from "./database.ts";
import { print } from "./output.ts";

export const migrate = defineCommand({
  summary: "Bring the database and the topics to what this build needs",
  options: { ...jsonOption },
  examples: ["migrate", "migrate --json"],
  async run({ values }) {
    const config = readConfig(readServerVariables());
    const migrations = await withPostgres(config.DATABASE_URL, applyMigrations);
    if (values.json) print(JSON.stringify({ schema_version: schemaVersion, migrations }));
    else
      print(
        `schema version ${schemaVersion}: ${migrations.length > 0 ? `applied ${migrations.join(", ")}` : "nothing to do"}`,
      );
  },
});

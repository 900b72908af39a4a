// Brings the database and the topics to what this build needs; may run any number of times, and at once.
import { readConfig } from "../config.ts";
import { prepareShards } from "../outbox/shards.ts";
import type { TopicSettings } from "../platform/kafka.ts";
import { migrate as applyMigrations, schemaVersion } from "../platform/migrate.ts";
import { topicsOf } from "../topics.ts";
import { defineCommand, jsonOption } from "./command.ts";
import { readServerVariables } from "./connection.ts";
import { withPostgres } from "./database.ts";
import { print } from "./output.ts";

export const migrate = defineCommand({
  summary: "Bring the database and the topics to what this build needs",
  options: { ...jsonOption },
  details: "Several may run at once, and again at any time. Without KAFKA_BROKERS it leaves the topics out.",
  examples: ["migrate", "migrate --json"],
  async run({ values }) {
    const config = readConfig(readServerVariables());
    const shards = config.KAFKA_PARTITIONS;
    const migrations = await withPostgres(config.DATABASE_URL, async (postgres) => {
      const applied = await applyMigrations(postgres);
      await prepareShards(postgres, shards);
      return applied;
    });
    const topics = config.KAFKA_BROKERS.length === 0 ? [] : topicsOf(config);
    if (topics.length > 0) await makeTopics(config.KAFKA_BROKERS, topics);

    const names = topics.map(({ name }) => name);
    if (values.json)
      return print(JSON.stringify({ schema_version: schemaVersion, migrations, shards, topics: names }));
    print(
      `schema  version ${schemaVersion}, ${migrations.length > 0 ? `applied ${migrations.join(", ")}` : "nothing to do"}`,
    );
    print(`shards  ${shards}`);
    print(`topics  ${names.length > 0 ? names.join(", ") : "left out: KAFKA_BROKERS is not set"}`);
  },
});

async function makeTopics(brokers: string[], topics: TopicSettings[]): Promise<void> {
  // Loaded here, since most commands do without a client of Kafka.
  const { ensureTopics } = await import("../platform/kafka.ts");
  await ensureTopics({ brokers, clientId: "chat4all-migrate" }, topics);
}

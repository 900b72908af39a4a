// Stop 5 of the walk, on a thread of its own: opens what the router needs, and closes it at the stop.
import { topicNames } from "../src/config.ts";
import { runWorker } from "../src/platform/channel.ts";
import { openPublisher } from "../src/platform/kafka.ts";
import { openPostgres, openPostgresPulse } from "../src/platform/postgres.ts";
import { untilTopicsExist } from "../src/platform/prepare.ts";
import { type Router, startRouter } from "../src/router/router.ts";
import { topicsOf } from "../src/topics.ts";

const connectionsMax = 4;
const statementTimeoutMs = 10_000;

runWorker("message-router", async ({ config, log, watchdogs, report, fail }) => {
  const pulse = openPostgresPulse(config.DATABASE_URL);
  const postgres = openPostgres({
    url: config.DATABASE_URL,
    pulse,
    connectionsMax,
    applicationName: "chat4all message-router",
    connectTimeoutSeconds: 2,
    statementTimeoutMs,
  });
  const kafka = { brokers: config.KAFKA_BROKERS, clientId: "chat4all-message-router" };
  const publisher = openPublisher(kafka);
  const stopping = new AbortController();
  let router: Router | undefined;

  async function open() {
    report("kafka", "degraded");
    await untilTopicsExist(kafka, topicsOf(config), stopping.signal);
    if (stopping.signal.aborted) return;
    router = await startRouter({
      kafka,
      groupId: `${config.KAFKA_TOPIC_PREFIX}.router`,
      postgres,
      publisher,
      topics: topicNames(config),
      channels: config.CHANNELS,
      log,
      watchdogs,
      report,
    });
  }

  open().catch(fail);
  return {
    async stop() {
      stopping.abort();
      await router?.stop();
      pulse.close();
      await Promise.all([publisher.close(), postgres.close()]);
    },
  };
});

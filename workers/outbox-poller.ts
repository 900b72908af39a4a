// Stop 4 of the walk, on a thread of its own: opens what the outbox poller needs, and closes it at the stop.
import { topicNames } from "../src/config.ts";
import { type Poller, startPoller } from "../src/outbox/poller.ts";
import { prepareShards } from "../src/outbox/shards.ts";
import { runWorker } from "../src/platform/channel.ts";
import { openPublisher } from "../src/platform/kafka.ts";
import { openPostgres, openPostgresPulse } from "../src/platform/postgres.ts";
import { untilPostgresHas, untilTopicsExist } from "../src/platform/prepare.ts";
import { topicsOf } from "../src/topics.ts";

const readConnections = 3;
// A renewal that takes longer than this is better asked again: the lease is 4 s.
const leaseStatementMs = 2_000;
const readStatementMs = 10_000;
/** Of a stop's time, what closing takes after the last batch. */
const closingMs = 2_500;

runWorker("outbox-poller", async ({ instanceId, config, log, watchdogs, report, fail }) => {
  const pulse = openPostgresPulse(config.DATABASE_URL);
  const reach = {
    url: config.DATABASE_URL,
    pulse,
    connectTimeoutSeconds: 2,
    applicationName: "chat4all outbox-poller",
  };
  const postgres = openPostgres({
    ...reach,
    connectionsMax: readConnections,
    statementTimeoutMs: readStatementMs,
  });
  const leasePostgres = openPostgres({ ...reach, connectionsMax: 1, statementTimeoutMs: leaseStatementMs });
  const kafka = { brokers: config.KAFKA_BROKERS, clientId: "chat4all-outbox-poller" };
  const publisher = openPublisher(kafka);
  const stopping = new AbortController();
  let poller: Poller | undefined;

  // It claims no shards before it has reached both systems: another instance may be able to.
  async function open() {
    report("postgres", "degraded");
    await untilPostgresHas(() => prepareShards(postgres, config.KAFKA_PARTITIONS), stopping.signal);
    report("postgres", "up");
    report("kafka", "degraded");
    await untilTopicsExist(kafka, topicsOf(config), stopping.signal);
    if (stopping.signal.aborted) return;
    report("kafka", "up");
    poller = startPoller({
      postgres,
      leasePostgres,
      publisher,
      topics: topicNames(config),
      pollerId: instanceId,
      log,
      watchdogs,
      report,
    });
  }

  open().catch(fail);
  return {
    wake: (shards) => poller?.wake(shards),
    async stop(deadlineMs) {
      stopping.abort();
      await poller?.stop(deadlineMs - closingMs);
      pulse.close();
      await Promise.all([publisher.close(), postgres.close(), leasePostgres.close()]);
    },
  };
});

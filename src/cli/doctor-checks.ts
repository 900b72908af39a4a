// What doctor looks at. A check reads the variables it needs itself; when those are wrong, the configuration's own
// check has said so, and it stays silent.
import { type Config, readConfig, readVariables } from "../config.ts";
import { OperatingError } from "../model/errors.ts";
import { countPartitions } from "../platform/kafka.ts";
import { openLog } from "../platform/log.ts";
import { checkSchema, schemaVersion } from "../platform/migrate.ts";
import { firstRow, type Postgres } from "../platform/postgres.ts";
import { openRedis } from "../platform/redis.ts";
import { topicsOf } from "../topics.ts";
import { withPostgres } from "./database.ts";
import { placeOf } from "./output.ts";

/** One thing that was looked at; `detail` says what to do when it is not ok. */
export interface Finding {
  subject: string;
  ok: boolean;
  detail: string;
}

type Variables = Record<string, string | undefined>;

const answerDeadlineMs = 5_000;
const clockSkewMaxMs = 1_000;
const postgresVersionMin = 180_000;

/** All checks; they may run at once. */
export const checks: ((variables: Variables) => Promise<Finding[]>)[] = [
  async (variables) => [checkConfiguration(variables)],
  checkPostgres,
  checkTopics,
  checkRedis,
  checkPort,
];

function checkConfiguration(variables: Variables): Finding {
  const config = valid(() => readConfig(variables));
  if (config instanceof OperatingError) return problem("configuration", config.message);
  return fine("configuration", `roles ${config.ROLES.join(", ")}`);
}

async function checkPostgres(variables: Variables): Promise<Finding[]> {
  const config = valid(() => readVariables(["DATABASE_URL"], variables));
  if (config instanceof OperatingError) return [];
  try {
    return await withPostgres(config.DATABASE_URL, async (postgres) => [
      await checkVersion(postgres),
      await checkSchema(postgres).then(
        () => fine("schema", `version ${schemaVersion}`),
        (error: Error) => problem("schema", error.message),
      ),
      await checkClock(postgres),
    ]);
  } catch (error) {
    return [problem("Postgres", (error as Error).message)];
  }
}

async function checkVersion(postgres: Postgres): Promise<Finding> {
  const { version, number } = firstRow(
    await postgres.query<{ version: string; number: number }>(
      "select current_setting('server_version') as version, current_setting('server_version_num')::int as number",
    ),
  );
  if (number >= postgresVersionMin) return fine("Postgres", `version ${version}`);
  return problem("Postgres", `version ${version} is too old: 18 or newer is needed`);
}

// Leases and tokens go by clocks: the database's and this machine's should not be far apart.
async function checkClock(postgres: Postgres): Promise<Finding> {
  const before = Date.now();
  const { now } = firstRow(await postgres.query<{ now: Date }>("select clock_timestamp() as now"));
  const skewMs = Math.round(now.getTime() - (before + Date.now()) / 2);
  if (Math.abs(skewMs) <= clockSkewMaxMs) return fine("clock", `${Math.abs(skewMs)} ms from Postgres's`);
  return problem(
    "clock",
    `${Math.abs(skewMs)} ms ${skewMs > 0 ? "behind" : "ahead of"} Postgres's; synchronise both (NTP)`,
  );
}

async function checkTopics(variables: Variables): Promise<Finding[]> {
  const names = ["KAFKA_BROKERS", "KAFKA_TOPIC_PREFIX", "KAFKA_PARTITIONS", "CHANNELS"] as const;
  const config = valid(() => readVariables(names, variables));
  if (config instanceof OperatingError) return [];
  if (config.KAFKA_BROKERS.length === 0) return [];
  const brokers = config.KAFKA_BROKERS;
  let counts: Map<string, number>;
  try {
    counts = await countPartitions(
      { brokers, clientId: "chat4all-doctor" },
      topicsOf(config),
      answerDeadlineMs,
    );
  } catch {
    const advice = "check KAFKA_BROKERS, and what the brokers advertise";
    return [
      problem("Kafka", `no answer from ${brokers.join(", ")} within ${answerDeadlineMs} ms; ${advice}`),
    ];
  }
  const reached = fine("Kafka", `${brokers.join(", ")} answers`);
  return [
    reached,
    ...topicsOf(config).map((topic) => checkTopic(topic.name, topic.partitions, counts.get(topic.name))),
  ];
}

function checkTopic(name: string, wanted: number, found: number | undefined): Finding {
  if (found === undefined) return problem("topic", `${name} is not there; run \`chat4all migrate\``);
  if (found === wanted) return fine("topic", `${name}, ${found} partitions`);
  return problem(
    "topic",
    `${name} has ${found} partitions, not ${wanted}: set KAFKA_PARTITIONS to what was first used`,
  );
}

async function checkRedis(variables: Variables): Promise<Finding[]> {
  const config = valid(() => readVariables(["REDIS_URL", "REDIS_PREFIX"], variables));
  if (config instanceof OperatingError) return [];
  const host = placeOf(config.REDIS_URL);
  const log = openLog("doctor", "silent");
  await using redis = openRedis({ url: config.REDIS_URL, prefix: config.REDIS_PREFIX, log });
  const deadline = Date.now() + answerDeadlineMs;
  while (Date.now() < deadline) {
    if (redis.state() === "up") return [fine("Redis", `${host} answers`)];
    await Bun.sleep(50);
  }
  return [
    problem("Redis", `no answer from ${host}; check REDIS_URL (the server runs without it, but slower)`),
  ];
}

async function checkPort(variables: Variables): Promise<Finding[]> {
  const config = valid(() => readVariables(["HOST", "PORT"], variables));
  if (config instanceof OperatingError) return [];
  const place = `${config.HOST}:${config.PORT}`;
  try {
    const listener = Bun.listen({
      hostname: config.HOST,
      port: config.PORT,
      socket: { data: () => undefined },
    });
    listener.stop(true);
    return [fine("port", `${place} is free`)];
  } catch (error) {
    const isTaken = (error as { code?: string }).code === "EADDRINUSE";
    if (isTaken && (await isChat4All(config))) return [fine("port", `${place} is in use by a Chat4All`)];
    const reason = isTaken
      ? "is in use by another program"
      : `can not be listened on (${(error as Error).message})`;
    return [problem("port", `${place} ${reason}; choose another HOST or PORT`)];
  }
}

async function isChat4All({ HOST, PORT }: Pick<Config, "HOST" | "PORT">): Promise<boolean> {
  try {
    const answer = await fetch(`http://${HOST}:${PORT}/openapi.json`, {
      signal: AbortSignal.timeout(answerDeadlineMs),
    });
    return answer.ok && (await answer.text()).includes("Chat4All");
  } catch {
    return false;
  }
}

function valid<T>(read: () => T): T | OperatingError {
  try {
    return read();
  } catch (error) {
    if (error instanceof OperatingError) return error;
    throw error;
  }
}

function fine(subject: string, detail: string): Finding {
  return { subject, ok: true, detail };
}

function problem(subject: string, detail: string): Finding {
  return { subject, ok: false, detail };
}

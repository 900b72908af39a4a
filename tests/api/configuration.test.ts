// A wrong or missing variable stops the start with one line that names it.
import { expect, test } from "bun:test";
import { readConfig } from "../../src/config.ts";
import { OperatingError } from "../../src/model/errors.ts";

const good = {
  DATABASE_URL: "postgres://user@127.0.0.1/chat",
  KAFKA_BROKERS: "127.0.0.1:9092",
  REDIS_URL: "redis://127.0.0.1:6379",
  JWT_SECRET: "a secret of at least 32 characters",
};

function faultOf(changes: Record<string, string | undefined>): string {
  try {
    readConfig({ ...good, ...changes });
  } catch (error) {
    expect(error).toBeInstanceOf(OperatingError);
    expect((error as OperatingError).code).toBe("bad_configuration");
    return (error as OperatingError).message;
  }
  throw new Error("it was taken");
}

test("has the contract's defaults", () => {
  expect(readConfig(good)).toMatchObject({
    PORT: 3000,
    RATE_LIMIT_USER_PER_SECOND: 20,
    RATE_LIMIT_CONVERSATION_PER_SECOND: 100,
    ROLES: ["api", "outbox", "router", "backfill"],
    CHANNELS: [],
  });
});

test.each(["DATABASE_URL", "KAFKA_BROKERS", "REDIS_URL", "JWT_SECRET"])(
  "names %s when it is missing",
  (name) => {
    for (const value of [undefined, ""]) {
      const fault = faultOf({ [name]: value });
      expect(fault).toStartWith(`${name} is not set`);
      expect(fault).not.toContain("\n");
    }
  },
);

test.each([
  ["PORT", "http"],
  ["PORT", "65536"],
  ["PORT", "-1"],
  ["PORT", "0x10"],
  ["DATABASE_URL", "mysql://x"],
  ["KAFKA_BROKERS", "localhost"],
  ["REDIS_URL", "127.0.0.1"],
  ["JWT_SECRET", "short"],
  ["JWT_JWKS_URL", "file:///etc/passwd"],
  ["ROLES", "api,everything"],
  ["CHANNELS", "Support"],
  ["CHANNELS", "a b"],
  ["RATE_LIMIT_USER_PER_SECOND", "many"],
  ["RATE_LIMIT_CONVERSATION_PER_SECOND", "-5"],
  ["LOG_LEVEL", "loud"],
  ["OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318"],
  ["METRICS_PORT", "x"],
])("names %s when it is %j, and shows no value", (name, value) => {
  const fault = faultOf({ [name]: value });
  expect(fault).toStartWith(`${name} is not valid`);
  expect(fault).not.toContain("\n");
  if (name === "JWT_SECRET") expect(fault).not.toContain(value);
});

test("names all that is wrong at once", () => {
  const fault = faultOf({ PORT: "x", REDIS_URL: undefined, LOG_LEVEL: "loud" });
  expect(fault.split("; ")).toHaveLength(3);
  for (const name of ["PORT", "REDIS_URL", "LOG_LEVEL"]) expect(fault).toContain(name);
});

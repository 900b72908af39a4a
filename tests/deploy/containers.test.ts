// compose.yaml and the Dockerfile, statically: neither is run by any test.
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { Ajv, type AnySchemaObject } from "ajv";
import { validate } from "dockerfile-utils";
import { parse } from "yaml";
import { environmentSchema } from "../../src/config.ts";

const root = resolve(import.meta.dir, "../..");
const read = (file: string) => readFileSync(join(root, file), "utf8");

interface Service {
  image: string;
  build?: object;
  ports?: string[];
  environment?: Record<string, unknown>;
  healthcheck?: object;
  restart: string;
  cap_drop: string[];
  security_opt: string[];
  depends_on?: Record<string, { condition: string }>;
}

describe("compose.yaml", () => {
  const text = read("compose.yaml");
  const compose: { services: Record<string, Service> } = parse(text, { merge: true });
  const services = Object.entries(compose.services);

  test("is what the Compose specification's schema allows", () => {
    const isValid = composeValidator();
    expect(isValid(compose) || isValid.errors).toBe(true);
    expect(isValid({ ...compose, services: { app: { imgae: "x" } } })).toBe(false);
  });

  test("has no default for a secret", () => {
    const secrets = text.match(/\$\{[A-Z_]*(PASSWORD|SECRET)[^}]*\}/g) ?? [];
    expect(secrets.length).toBeGreaterThanOrEqual(3);
    for (const secret of secrets) expect(secret).toMatch(/^\$\{[A-Z_]+:\?.+\}$/);
    for (const [name, value] of services.flatMap(([, service]) =>
      Object.entries(service.environment ?? {}),
    )) {
      if (/PASSWORD|SECRET/.test(name)) expect(value).toStartWith("${");
    }
  });

  test("publishes ports on the loopback address only", () => {
    const ports = services.flatMap(([, service]) => service.ports ?? []);
    expect(ports).toHaveLength(1);
    for (const port of ports) expect(port).toStartWith("127.0.0.1:");
  });

  test("starts the node after the migration, and that after its servers", () => {
    const conditions = (name: string) => compose.services[name]?.depends_on;
    expect(conditions("app")).toMatchObject({ migrate: { condition: "service_completed_successfully" } });
    expect(conditions("migrate")).toEqual({
      postgres: { condition: "service_healthy" },
      kafka: { condition: "service_healthy" },
    });
  });

  test("names only variables that the configuration knows", () => {
    const names = Object.keys(compose.services["app"]?.environment ?? {});
    expect(Object.keys(environmentSchema.properties)).toEqual(expect.arrayContaining(names));
  });

  test.each(services)(
    "%s is healthy or ends, is pinned, and has no right that it does not need",
    (...[, service]) => {
      expect(service.healthcheck !== undefined || service.restart === "no").toBe(true);
      if (service.build === undefined) expect(service.image).toMatch(/:\d+\.\d+/);
      expect(service.cap_drop).toEqual(["ALL"]);
      expect(service.security_opt).toEqual(["no-new-privileges:true"]);
    },
  );
});

describe("Dockerfile", () => {
  const text = read("Dockerfile");

  test("is made of instructions that Docker knows", () => {
    expect(validate(text)).toEqual([]);
    expect(validate(text.replace("ENTRYPOINT", "ENTRYPIONT"))).not.toEqual([]);
  });

  test("builds with the Bun that the package is pinned to, and runs on an image without a shell, without rights", () => {
    const bun = JSON.parse(read("package.json")).engines.bun;
    expect(text.match(/^FROM .*/gm)).toEqual([
      `FROM oven/bun:${bun} AS build`,
      "FROM gcr.io/distroless/base-debian12:nonroot",
    ]);
    expect(text).toMatch(/^USER 65532:65532$/m);
    expect(text).toMatch(/^HEALTHCHECK .* CMD \["\/usr\/local\/bin\/chat4all", "healthcheck"\]$/m);
  });

  test("copies nothing that .dockerignore leaves out", () => {
    const kept = read(".dockerignore").match(/(?<=^!).*/gm) ?? [];
    const copied = [...text.matchAll(/^COPY (?!--from)(.*) \S+$/gm)].flatMap(([, from = ""]) =>
      from.split(" "),
    );
    expect(copied.toSorted()).toEqual(kept.toSorted());
  });
});

function composeValidator() {
  const folder = dirname(Bun.resolveSync("dclint/package.json", root));
  const { $schema: _, ...schema }: AnySchemaObject = JSON.parse(
    readFileSync(join(folder, "schemas/compose.schema.json"), "utf8"),
  );
  // Its formats (ports, durations) are Compose's own.
  return new Ajv({ strict: false, validateFormats: false }).compile(schema);
}

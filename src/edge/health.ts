// Whether this process works, and whether it should get traffic.
import { Elysia } from "elysia";
import { healthAnswer, readinessAnswer } from "../model/answers.ts";
import { describeAnswers, withProblems } from "./describe.ts";

/** How a dependency or worker is now; only Postgres and draining make an instance unready. */
export type Health = "up" | "degraded" | "down";

/** What is asked at each GET /readyz. */
export interface Readiness {
  isDraining(): boolean;
  postgres(): Health;
  /** Everything else by name. */
  others(): Record<string, Health>;
}

// Any URL may be malformed: 400.
const describe = {
  health: withProblems(describeAnswers("admin", "Whether the process works", { 200: healthAnswer }), [400]),
  readiness: withProblems(
    describeAnswers("admin", "Whether it should get traffic", {
      200: readinessAnswer,
      503: readinessAnswer,
    }),
    [400],
  ),
};

/** GET /healthz and GET /readyz. */
export function healthRoutes(readiness: Readiness) {
  return new Elysia({ name: "health" })
    .get("/healthz", () => ({ status: "ok" }), {
      detail: { ...describe.health, security: [] },
    })
    .get(
      "/readyz",
      ({ set }) => {
        const postgres = readiness.postgres();
        const dependencies = { postgres, ...readiness.others() };
        const isReady = postgres === "up" && !readiness.isDraining();
        const isWhole = Object.values(dependencies).every((health) => health === "up");
        set.status = isReady ? 200 : 503;
        if (!isReady) set.headers["retry-after"] = "1";
        const unready = readiness.isDraining() ? "draining" : "unavailable";
        return { status: isReady ? (isWhole ? "ok" : "degraded") : unready, dependencies };
      },
      {
        detail: { ...describe.readiness, security: [] },
      },
    );
}

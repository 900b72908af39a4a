// One HTTP call of a client: its answer, or what broke, and when.
import type { Outcome, Try } from "../history.ts";
import type { Target, World } from "./world.ts";

/** What came of it. A body that is JSON is parsed. */
export interface Called {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: answers of every shape.
  body: any;
  tried: Try;
}

/** What is called. */
export interface Call {
  client: string;
  user: string;
  method: string;
  path: string;
  body?: unknown;
  headers?: Record<string, string>;
}

const answerMsMax = 4_000;

/** Never rejects. Answers of overload count as failed, and are to be tried again later. */
export async function call(world: World, target: Target, what: Call): Promise<Called> {
  const { client, user, method, path, body } = what;
  const tried: Try = {
    client,
    instance: target.name,
    invokedAtMs: performance.now(),
    completedAtMs: 0,
    outcome: "unknown",
  };
  let status = 0;
  let answer: Called["body"];
  try {
    const response = await fetch(target.url + path, {
      method,
      headers: {
        authorization: `Bearer ${world.tokens.get(user)}`,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...what.headers,
      },
      body: body === undefined ? null : typeof body === "string" ? body : JSON.stringify(body),
      signal: AbortSignal.timeout(answerMsMax),
      // On a connection that breaks fetch sends a GET or DELETE a second time by itself, and tells nobody.
      keepalive: method === "POST" || method === "PATCH",
    });
    const text = await response.text();
    answer = text === "" ? undefined : JSON.parse(text);
    status = response.status;
    tried.outcome = outcomeOf(status);
    if (tried.outcome !== "ok") tried.code = String(answer?.code ?? status);
  } catch (error) {
    tried.code = (error as Error).name;
    status = 0;
  }
  tried.completedAtMs = performance.now();
  if (tried.outcome === "unknown") world.targets.failed(target.name);
  return { status, body: answer, tried };
}

export function outcomeOf(status: number): Outcome {
  if (status >= 200 && status < 300) return "ok";
  return status >= 400 && status < 500 ? "failed" : "unknown";
}

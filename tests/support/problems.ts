// What every refusal must look like, whichever call gave it.
import { expect } from "bun:test";
import type { Answer } from "./server.ts";

/** To be put into hostile input: no problem may show it again. */
export const echoMark = "echo-me-not";

const members = [
  "type",
  "title",
  "status",
  "code",
  "detail",
  "request_id",
  "errors",
  "error",
  "error_description",
];
const inside = /node_modules|\.ts:\d|\.sql|postgres|at .+\(.+\)|Error:/;

/** Expects problem+json (RFC 9457) with this status and code, and faults at these paths where they are given. */
export function expectProblem(answer: Answer, status: number, code: string, paths?: string[]): void {
  const { headers, body } = answer;
  expect({ status: answer.status, code: body.code }).toEqual({ status, code });
  expect(headers.get("content-type")).toBe("application/problem+json");
  expectProblemDocument(body, status);
  expect(headers.get("x-request-id")).toBe(body.request_id);
  if (status === 401) expect(headers.get("www-authenticate")).toMatch(/^(Bearer|Basic) realm="chat4all"/);
  if (status === 429 || status === 503) expect(Number(headers.get("retry-after"))).toBeGreaterThan(0);
  if (paths !== undefined) expect(body.errors.map(({ path }: { path: string }) => path)).toEqual(paths);
}

/** The document alone, as it also stands in the results of a batch. */
export function expectProblemDocument(document: Answer["body"], status: number): void {
  // toMatchObject writes its matchers into what it is given.
  expect({ ...document }).toMatchObject({
    type: "about:blank",
    title: expect.any(String),
    status,
    code: expect.stringMatching(/^[a-z]+(_[a-z]+)*$/),
    detail: expect.any(String),
    request_id: expect.stringMatching(/^[0-9a-f]{32}$/),
  });
  expect(Object.keys(document).filter((name) => !members.includes(name))).toEqual([]);
  const text = JSON.stringify(document);
  expect(text).not.toMatch(inside);
  expect(text).not.toContain(echoMark);
}

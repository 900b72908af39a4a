// Errors of two kinds: what an operator must know (OperatingError) and what a caller did wrong (Problem).

/** An expected failure of the surroundings: `code` is stable snake_case, `cause` is for the log only. */
export class OperatingError extends Error {
  readonly code: string;

  constructor(code: string, options: { cause?: unknown; message?: string } = {}) {
    super(options.message ?? code, { cause: options.cause });
    this.name = "OperatingError";
    this.code = code;
  }
}

/** One fault of the input: `path` is a JSON pointer into it (RFC 6901). */
export interface InputFault {
  path: string;
  message: string;
}

/** What a caller is told (RFC 9457). Thrown anywhere, turned into problem+json at the edge. */
export class Problem extends Error {
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  readonly errors: InputFault[] | undefined;
  /** Seconds for the Retry-After header; set on 429 and 503. */
  readonly retryAfterSeconds: number | undefined;

  constructor(
    status: number,
    code: string,
    detail: string,
    options: { errors?: InputFault[]; retryAfterSeconds?: number; cause?: unknown } = {},
  ) {
    super(detail, { cause: options.cause });
    this.name = "Problem";
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.errors = options.errors;
    this.retryAfterSeconds = options.retryAfterSeconds;
  }
}

/** 400 with one fault at `path`. */
export function invalidInput(path: string, message: string, code = "invalid_request"): Problem {
  return new Problem(400, code, "The request is not as the schema says.", { errors: [{ path, message }] });
}

/** 503 for a part that is away for now; the caller may safely retry with the same ids. */
export function unavailable(code: string, detail: string, cause?: unknown): Problem {
  return new Problem(503, code, detail, { retryAfterSeconds: 1, cause });
}

/** 503 for more than this instance can take now; nothing was done with the request. */
export function overloaded(): Problem {
  return unavailable("overloaded", "This instance has more to do than it can; try again.");
}

/** 403 for somebody outside the conversation. */
export function notMember(): Problem {
  return new Problem(403, "not_a_member", "You are not a member of this conversation.");
}

/** 404 for a conversation that does not exist. */
export function noConversation(): Problem {
  return new Problem(404, "conversation_not_found", "There is no such conversation.");
}

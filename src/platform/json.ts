// JSON at the edge: bytes of a bounded body to a value that Postgres and every client can hold.
import { invalidInput, overloaded, Problem } from "../model/errors.ts";

const depthMax = 32;
const utf8 = new TextDecoder("utf-8", { fatal: true });

/** How long a body may take to arrive, however many bytes come meanwhile. */
const bodyMsMax = 10_000;
/** Of all bodies together that this process reads; those of a declared length count with it from the start. */
const bodiesBytesMax = 128 * 1024 * 1024;
let bodiesBytes = 0;

/**
 * Reads a body of at most `bytesMax`; throws Problem 413 beyond, before it is held in memory, 408 when it does not
 * arrive in time, and 503 when too many others are being read.
 */
export async function readBody(request: Request, bytesMax: number): Promise<Uint8Array> {
  const declared = Number(request.headers.get("content-length") ?? Number.NaN);
  if (declared > bytesMax) throw tooLarge(bytesMax);
  let bytes = 0;
  const count = (more: number) => {
    bytes += more;
    bodiesBytes += more;
    if (bytes > bytesMax) throw tooLarge(bytesMax);
    if (bodiesBytes > bodiesBytesMax) throw overloaded();
  };
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(tooSlow()), bodyMsMax);
  try {
    if (declared >= 0) {
      count(declared);
      return new Uint8Array(await Promise.race([request.arrayBuffer(), late.promise]));
    }
    return await readChunks(request, count, late.promise);
  } finally {
    clearTimeout(timer);
    bodiesBytes -= bytes;
  }
}

async function readChunks(
  request: Request,
  count: (bytes: number) => void,
  late: Promise<never>,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const reader = request.body?.getReader();
  try {
    for (;;) {
      const next = await Promise.race([reader?.read(), late]);
      if (next?.value === undefined) return Buffer.concat(chunks);
      count(next.value.byteLength);
      chunks.push(next.value);
    }
  } catch (error) {
    reader?.cancel().catch(() => undefined);
    throw error;
  }
}

function tooSlow(): Problem {
  return new Problem(408, "body_too_slow", `The body did not arrive within ${bodyMsMax / 1000} seconds.`);
}

function tooLarge(bytesMax: number): Problem {
  return new Problem(413, "body_too_large", `The body has more than ${bytesMax} bytes.`);
}

/** UTF-8 JSON to a value, which is still to be checked; throws Problem 400. */
export function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(utf8.decode(bytes));
  } catch (cause) {
    // A RangeError is nesting beyond the parser's stack.
    throw new Problem(400, "malformed_json", "The body is not JSON in UTF-8.", { cause });
  }
}

/**
 * Throws Problem 400 for what JSON allows but Postgres or other readers do not hold (RFC 7493, I-JSON): U+0000,
 * lone surrogates, integers beyond 2^53, nesting deeper than 32.
 */
export function checkValue(value: unknown, path = "", depth = 0): void {
  if (typeof value === "string") return checkText(value, path);
  if (typeof value === "number") {
    const exact = Number.isFinite(value) && (!Number.isInteger(value) || Number.isSafeInteger(value));
    if (!exact) throw invalidInput(path, "must be a number within ±(2^53 - 1)");
    return;
  }
  if (typeof value !== "object" || value === null) return;
  if (depth >= depthMax) throw invalidInput(path.slice(0, 200), `must not be nested deeper than ${depthMax}`);
  for (const [key, item] of Object.entries(value)) {
    const itemPath = `${path}/${key.replaceAll("~", "~0").replaceAll("/", "~1")}`;
    checkText(key, path);
    checkValue(item, itemPath, depth + 1);
  }
}

/** Throws Problem 400 for text with U+0000 or a lone surrogate. */
export function checkText(text: string, path: string): void {
  if (text.includes("\0")) throw invalidInput(path, "must not contain U+0000");
  if (!text.isWellFormed()) throw invalidInput(path, "must not contain a lone surrogate");
}

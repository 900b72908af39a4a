// W3C Trace Context: who sent a message is found again in every record that came of it.
const traceparentPattern = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

const pool = new Uint8Array(24 * 256);
let position = pool.length;

/** The request's traceparent with a span of ours, or a new trace. */
export function traceparentOf(header: string | null): string {
  const random = randomHex();
  if (header !== null && traceparentPattern.test(header)) {
    return `${header.slice(0, 36)}${random.slice(0, 16)}${header.slice(52)}`;
  }
  return `00-${random.slice(16)}-${random.slice(0, 16)}-01`;
}

/** The trace id in a traceparent, which callers know as request_id. */
export function traceIdOf(traceparent: string): string {
  return traceparent.slice(3, 35);
}

// 24 random bytes as hex; drawn 256 at a time, since each draw is a system call.
function randomHex(): string {
  if (position === pool.length) {
    crypto.getRandomValues(pool);
    position = 0;
  }
  const hex = Buffer.from(pool.buffer, position, 24).toString("hex");
  position += 24;
  return hex;
}

// The load of bench/overload.ts, a process of its own: posts messages over many kept connections, one request at a time on
// each, and notes what became of them.
//
//   --rate R      open loop: R a second whatever the answers do. A request's time runs from the moment at which it was due,
//                 also when no connection was free then, so that a server that stalls cannot hide it (coordinated omission).
//                 What finds none for a second is given up. A line with a number on standard input is the rate from then on.
//   --rate 0      closed loop: each connection sends again once it was answered.
//
// Arrives: arguments, and TOKEN, IDS (a file of conversations), RUN (8 hex digits) in the environment.
// Leaves: a line of JSON each second and one at the end. It ends by itself, when all that was sent is answered.
import { parseArgs } from "node:util";
import type { Socket } from "bun";
import { Histogram } from "./histogram.ts";

/** What the line at the end says; the lines before it say the same of one second. */
export interface LoadReport {
  seconds: number;
  sent: number;
  accepted: number;
  refused: number;
  /** Answers other than 202 and 503, and connections that broke: there should be none. */
  failed: number;
  /** Requests that were due and found no free connection for a second: the node did not even refuse in time. */
  unsent: number;
  acceptedP50Ms: number;
  acceptedP99Ms: number;
  acceptedMaxMs: number;
  refusedP99Ms: number;
  /** Sum of the numbers in the ids of what was accepted: Postgres must come to the same. */
  acceptedSum: number;
}

interface Connection {
  socket: Socket<Connection> | null;
  /** When its request was due; 0: it is free. */
  dueAtMs: number;
  number: number;
  /** What has come of its answer. */
  answer: string;
}

const drainMsMax = 30_000;
const patienceMs = 1000;
const text = "0123456789012345678901234567890123456789";

if (import.meta.main) await run();

async function run(): Promise<void> {
  const { values } = parseArgs({
    options: {
      url: { type: "string" },
      rate: { type: "string", default: "0" },
      seconds: { type: "string", default: "10" },
      connections: { type: "string", default: "256" },
    },
  });
  const { hostname, port } = new URL(values.url ?? "");
  const conversations = (await Bun.file(process.env["IDS"] ?? "").text()).trim().split("\n");
  const load = new Load(hostname, conversations, process.env["RUN"] ?? "");
  await load.connect(Number(port), Number(values.connections));
  load.rate = Number(values.rate);
  void followRate(load);
  await load.send(Number(values.seconds) * 1000);
  process.exit(0);
}

async function followRate(load: Load): Promise<void> {
  for await (const line of console) load.rate = Number(line);
}

class Load {
  /** Requests a second; 0: each connection sends when it was answered. */
  rate = 0;
  readonly #hostname: string;
  /** Of every request, but for its length. */
  readonly #head: string;
  readonly #conversations: readonly string[];
  readonly #run: string;
  readonly #free: Connection[] = [];
  readonly #total = new Tally();
  #second = new Tally();
  #numbers = 0;
  #unanswered = 0;
  #isClosedLoop = false;
  #isSending = false;

  constructor(hostname: string, conversations: readonly string[], runId: string) {
    this.#hostname = hostname;
    this.#head = `POST /v1/messages HTTP/1.1\r\nhost: ${hostname}\r\nauthorization: Bearer ${process.env["TOKEN"]}\r\ncontent-type: application/json\r\n`;
    this.#conversations = conversations;
    this.#run = runId;
  }

  /** Opens the connections, a few at a time. */
  async connect(port: number, count: number): Promise<void> {
    const handler = {
      data: (socket: Socket<Connection>, bytes: Buffer) => this.#hear(socket.data, bytes),
      close: (socket: Socket<Connection>) => this.#broke(socket.data),
    };
    for (let opened = 0; opened < count; opened += 100) {
      await Promise.all(
        Array.from({ length: Math.min(100, count - opened) }, async () => {
          const connection: Connection = { socket: null, dueAtMs: 0, number: 0, answer: "" };
          connection.socket = await Bun.connect({
            hostname: this.#hostname,
            port,
            data: connection,
            socket: handler,
          });
          this.#free.push(connection);
        }),
      );
    }
  }

  async send(durationMs: number): Promise<void> {
    const startedAtMs = performance.now();
    this.#isClosedLoop = this.rate === 0;
    this.#isSending = true;
    const ticker = setInterval(() => this.#tell(), 1000);
    if (this.#isClosedLoop) {
      for (const connection of this.#free.splice(0)) this.#post(connection, performance.now());
      await Bun.sleep(durationMs);
    } else {
      await this.#sendOnTime(startedAtMs, startedAtMs + durationMs);
    }
    this.#isSending = false;
    const seconds = (performance.now() - startedAtMs) / 1000;
    const drainedBy = performance.now() + drainMsMax;
    while (this.#unanswered > 0 && performance.now() < drainedBy) await Bun.sleep(10);
    clearInterval(ticker);
    this.#total.failed += this.#unanswered;
    console.log(JSON.stringify(this.#total.report(seconds)));
  }

  // What is due is sent every millisecond or so. What finds no free connection stays due, and its time runs.
  async #sendOnTime(startedAtMs: number, endsAtMs: number): Promise<void> {
    const dueAtMs: number[] = [];
    let next = 0;
    let dueUntilMs = startedAtMs;
    for (let now = startedAtMs; now < endsAtMs; now = performance.now()) {
      for (; dueUntilMs < now; dueUntilMs += 1000 / this.rate) dueAtMs.push(dueUntilMs);
      for (; next < dueAtMs.length; next += 1) {
        const due = dueAtMs[next] as number;
        if (now - due > patienceMs) this.#count((tally) => (tally.unsent += 1));
        else {
          const connection = this.#takeFree();
          if (connection === undefined) break;
          this.#post(connection, due);
        }
      }
      if (next > 10_000) dueAtMs.splice(0, next);
      if (next > 10_000) next = 0;
      await Bun.sleep(1);
    }
  }

  // Any of them, so that none is silent for so long that the node may end it just when it is used.
  #takeFree(): Connection | undefined {
    const last = this.#free.pop();
    if (last === undefined || this.#free.length === 0) return last;
    const place = Math.floor(Math.random() * this.#free.length);
    const chosen = this.#free[place];
    this.#free[place] = last;
    return chosen;
  }

  #post(connection: Connection, dueAtMs: number): void {
    const number = (this.#numbers += 1);
    connection.dueAtMs = dueAtMs;
    connection.number = number;
    const { length } = this.#conversations;
    const conversation = this.#conversations[Math.floor(Math.random() * length)];
    const id = `${this.#run}-0000-4000-8000-${number.toString(16).padStart(12, "0")}`;
    const body = `{"message_id":"${id}","conversation_id":"${conversation}","payload":{"type":"text","text":"${text}"}}`;
    this.#unanswered += 1;
    this.#count((tally) => (tally.sent += 1));
    const request = `${this.#head}content-length: ${body.length}\r\n\r\n${body}`;
    if (connection.socket?.write(request) !== request.length) this.#answered(connection, 0);
  }

  // An answer is complete when all of its body is there; it mostly comes in one piece.
  #hear(connection: Connection, bytes: Buffer): void {
    connection.answer += bytes.toString("latin1");
    const { answer } = connection;
    const end = answer.indexOf("\r\n\r\n");
    if (end === -1) return;
    const length = Number(/content-length: (\d+)/i.exec(answer)?.[1] ?? 0);
    if (answer.length < end + 4 + length) return;
    connection.answer = "";
    this.#answered(connection, Number(answer.slice(9, 12)));
    if (this.#isClosedLoop && this.#isSending) this.#post(connection, performance.now());
    else this.#free.push(connection);
  }

  #broke(connection: Connection): void {
    if (connection.dueAtMs > 0) this.#answered(connection, 0);
    const place = this.#free.indexOf(connection);
    if (place !== -1) this.#free.splice(place, 1);
  }

  #answered(connection: Connection, status: number): void {
    const tookMs = performance.now() - connection.dueAtMs;
    connection.dueAtMs = 0;
    this.#unanswered -= 1;
    this.#count((tally) => tally.note(status, tookMs, connection.number));
  }

  #count(note: (tally: Tally) => void): void {
    note(this.#total);
    note(this.#second);
  }

  #tell(): void {
    console.log(JSON.stringify(this.#second.report(1)));
    this.#second = new Tally();
  }
}

class Tally {
  sent = 0;
  unsent = 0;
  failed = 0;
  #acceptedSum = 0;
  readonly #accepted = new Histogram();
  readonly #refused = new Histogram();

  note(status: number, tookMs: number, number: number): void {
    if (status === 202) {
      this.#accepted.note(tookMs);
      this.#acceptedSum += number;
    } else if (status === 503) this.#refused.note(tookMs);
    else this.failed += 1;
  }

  report(seconds: number): LoadReport {
    return {
      seconds,
      sent: this.sent,
      accepted: this.#accepted.count,
      refused: this.#refused.count,
      failed: this.failed,
      unsent: this.unsent,
      acceptedP50Ms: this.#accepted.quantile(0.5),
      acceptedP99Ms: this.#accepted.quantile(0.99),
      acceptedMaxMs: this.#accepted.quantile(1),
      refusedP99Ms: this.#refused.quantile(0.99),
      acceptedSum: this.#acceptedSum,
    };
  }
}

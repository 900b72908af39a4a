// Whether a server answers. It is asked a few times a second, on a connection of its own, so that nobody needs to wait
// for what is away, and everybody learns at once that it is back.
//
//   up --two failures in a row, or silence--> away --an answer--> up

/** A connection that can be asked. */
export interface Probe {
  /** Resolves with the answer, rejects when the server cannot be reached; may also stay silent for ever. */
  ask(): Promise<unknown>;
  /** Ends the connection, whatever it is doing. */
  end(): void;
}

/** What is known of one server. */
export interface Pulse {
  isAway(): boolean;
  /** Called each time when it is found away. */
  onAway(listener: () => void): void;
  close(): void;
}

const turnMs = 200;
const failuresMax = 2;
// Silence is counted in turns of this thread, so that one that stood still itself takes nobody for silent.
const silentTurnsMax = 8;
/** While it is away a new connection is soon tried instead of one that says nothing. */
const silentTurnsMaxAway = 5;

/** Begins to ask, taking the server to be there; `openProbe` is called again after each silence. */
export function openPulse(openProbe: () => Probe): Pulse {
  const listeners: (() => void)[] = [];
  let probe = openProbe();
  let isAway = false;
  let isAsking = false;
  let silentTurns = 0;
  let failures = 0;

  const timer = setInterval(() => {
    if (!isAsking) return void ask(probe);
    silentTurns += 1;
    if (silentTurns < (isAway ? silentTurnsMaxAway : silentTurnsMax)) return;
    miss();
    probe.end();
    probe = openProbe();
    void ask(probe);
  }, turnMs);

  async function ask(asked: Probe) {
    isAsking = true;
    silentTurns = 0;
    const isAnswered = await asked.ask().then(
      () => true,
      () => false,
    );
    // One that was given up tells nothing any more.
    if (asked !== probe) return;
    isAsking = false;
    failures = isAnswered ? 0 : failures + 1;
    if (isAnswered) isAway = false;
    else if (failures >= failuresMax) miss();
    // One cut connection is no absence: the next one tells.
    else void ask(asked);
  }

  function miss() {
    if (isAway) return;
    isAway = true;
    for (const tell of listeners) tell();
  }

  return {
    isAway: () => isAway,
    onAway: (listener) => void listeners.push(listener),
    close() {
      clearInterval(timer);
      probe.end();
    },
  };
}

// When journeys begin, and what each of them chooses.
//
// k6 starts the iterations of an arrival-rate executor at even spaces. Buyers do not come like that, and even spacing
// hides queueing: a server that is busy 80 % of the time shows almost no wait. So every journey first waits for a
// random time, uniform over JITTER_S. Seen over a span t < JITTER_S the count of arrivals then varies (1 - t / JITTER_S)
// times as much as Poisson's does: 0.9 at 100 ms, the time in which the target's queues form and drain. A longer wait
// would come closer and cost more: at any time rate x JITTER_S / 2 virtual users do nothing but wait.
//
// Everything random follows from SEED, the k6 scenario and the iteration's number, never from the virtual user that
// happens to run it: every variant of a run is offered the same arrivals and the same choices.

import exec from 'k6/execution';
import { sleep } from 'k6';

export const JITTER_S = 1;

const origins = {};

function origin(seed, scenario) {
  const text = `${seed}/${scenario}`;
  if (!(text in origins)) {
    let hash = 0x811c9dc5; // FNV-1a
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
    origins[text] = hash >>> 0;
  }
  return origins[text];
}

/** Return the current iteration's own random numbers: a function that gives the next one in [0, 1). */
export function randomness(params) {
  const { name, iterationInTest } = exec.scenario;
  let state = (origin(params.seed, name) + Math.imul(iterationInTest + 1, 0x9e3779b9)) | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0; // mulberry32
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** Wait as one of many independent buyers would have come: up to JITTER_S. Call it first in every journey. */
export function arrive(random) {
  sleep(random() * JITTER_S);
}

/** Return the match a buyer wants: match 1 with probability hotShare, else one of 2 to 10. */
export function wantedMatch(params, random) {
  return random() < params.hotShare ? 1 : 2 + Math.floor(random() * 9);
}

/** Return one of the matches 11 to 20, which only warm-ups touch. */
export function warmupMatch(random) {
  return 11 + Math.floor(random() * 10);
}

/** Return a name that no other journey of any trial has: idempotency key and buyer. */
export function uniqueName(params) {
  return `${params.trial}-${exec.scenario.name}-${exec.scenario.iterationInTest}`;
}

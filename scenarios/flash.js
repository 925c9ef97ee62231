// One hot match, and a crowd that is on the buy button all at once: each presses, waits for the answer, presses again.
//
// A closed model, because the question names a number of users (factor vus): when the sale slows down, it is asked less.
// For what a sale stands whatever becomes of it, see `spike`, which is an open one.

import { sleep } from 'k6';

import { randomness, uniqueName, warmupMatch } from './lib/arrivals.js';
import { purchase } from './lib/journeys.js';
import { crowd, slos } from './lib/options.js';
import { load } from './lib/params.js';

const HOT_MATCH = 1;
const PAUSE_S = 1; // before the next press, half to one and a half of it

const params = load({ duration: 30, vus: 1000 });

export const options = crowd({
  params,
  meta: {
    title: 'a crowd on the buy button of one match',
    asks: 'What gives way first when so many users buy one match at once, and is every ticket sold exactly once?',
    look_at:
      'the connection pool, where purchases queue while payments are waited for inside their transactions; the ' +
      "503s after pool_timeout_s; the event loop and the machine's CPU, which may be the limit before the pool " +
      'is; the audit.',
    goal: 'purchase',
    levels: { payment: 'in_transaction', payment_ms: 20, stock: 1000000 },
  },
  prewarm: { rate: 30, duration_s: 5, vus: 60 },
  thresholds: slos({ purchase: 500 }, { users: true }),
});

export function warmup() {
  purchase(params, warmupMatch(randomness(params)), uniqueName(params));
}

export default function main() {
  const random = randomness(params);
  purchase(params, HOT_MATCH, uniqueName(params));
  sleep(PAUSE_S * (0.5 + random()));
}

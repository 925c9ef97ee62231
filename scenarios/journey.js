// A buyer from registration to "my tickets", with the time that a person takes between two pages, and those who leave.

import { sleep } from 'k6';

import { arrive, randomness, uniqueName, wantedMatch, warmupMatch } from './lib/arrivals.js';
import { checkout, hold, listMatches, myTickets, readMatch, register } from './lib/journeys.js';
import { slos, steady } from './lib/options.js';
import { load } from './lib/params.js';

const THINK_S = 1; // between two pages, half to one and a half of it: a person takes longer, and a run would too
const LEAVE_AFTER_LOOKING = 0.3;
const LEAVE_A_CART = 0.2;

// Six pauses and six requests of up to 5 s in trouble are more than anybody waits for: 20 s cover a slow sale.
const params = load({ rate: 8, duration: 60, hotShare: 0.2, journey_s: 20 });

export const options = steady({
  params,
  meta: {
    title: 'buyers from registration to their tickets',
    asks: 'Can a person register, browse, fill a cart and pay at this rate, and is every paid ticket there?',
    look_at:
      "the latency of checkout and hold beside that of the pages; what registering costs in the app's CPU " +
      '(factor password_cost); the carts that were left, which the audit finds as held; whether every ticket ' +
      'that was paid for is there.',
    goal: 'checkout',
    reads: ['HOT_SHARE'],
    levels: { stock: 1000000, hold_ttl_s: 20, payment_ms: 20 },
  },
  drain: '15s',
  thresholds: slos({ register: 1000, match: 200, hold: 300, checkout: 500, tickets: 300 }),
});

function think(random) {
  sleep(THINK_S * (0.5 + random()));
}

function buy(random, match) {
  arrive(random);
  const name = uniqueName(params);
  const token = register(params, name);
  if (token === null) return;
  think(random);
  listMatches(params);
  think(random);
  readMatch(params, match);
  think(random);
  if (random() < LEAVE_AFTER_LOOKING || !hold(params, token, match)) return;
  think(random);
  if (random() < LEAVE_A_CART || !checkout(params, token, name)) return;
  think(random);
  myTickets(params, token);
}

export function warmup() {
  const random = randomness(params);
  buy(random, warmupMatch(random));
}

export default function main() {
  const random = randomness(params);
  buy(random, wantedMatch(params, random));
}

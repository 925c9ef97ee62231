// The sale of one hot match opens: buyers come ten times as fast within two seconds, stay, and leave.

import { arrive, randomness, uniqueName, wantedMatch, warmupMatch } from './lib/arrivals.js';
import { purchase, readMatch } from './lib/journeys.js';
import { slos, transient } from './lib/options.js';
import { load } from './lib/params.js';

const BASE_SHARE = 0.1; // of the peak, before and after it
const QUIET_SHARE = 0.1; // of the event's time, before and after the peak
const RAMP_S = 2;
const PREWARM_SHARE = 0.3; // of the peak: below what a pool of 2 sustains, so that no backlog reaches the event

// In trouble the page takes a second, and a buyer who is refused twice waits 2 s for a connection, a second, 2 s again.
const params = load({ rate: 180, duration: 30, hotShare: 1, journey_s: 6 });
const base = params.rate * BASE_SHARE;
const quiet_s = params.duration_s * QUIET_SHARE;
const ramp_s = Math.min(RAMP_S, params.duration_s * 0.1);
const peak_s = params.duration_s - 2 * quiet_s - 2 * ramp_s;

export const options = transient({
  params,
  meta: {
    title: 'the sale of a hot match opens',
    asks: 'Does the sale stand a sudden rush on one match, and is every ticket sold exactly once?',
    goal: 'purchase',
    reads: ['HOT_SHARE'],
    // The payment inside the transaction makes the connection the scarce thing: 180 purchases a second hold 180 x 23 ms
    // = 4.1 connections, less than half of a pool of 10 and more than twice a pool of 2 (about 83 purchases a second).
    // By default 4104 buyers come, 3852 of them up to the end of the peak: 3500 tickets are gone two seconds before
    // that, and a pool of 2 never gets there.
    levels: { payment: 'in_transaction', payment_ms: 20, stock: 3500 },
  },
  prewarm: { rate: params.rate * PREWARM_SHARE, duration_s: 5 },
  startRate: base,
  stages: [
    [base, quiet_s],
    [params.rate, ramp_s],
    [params.rate, peak_s],
    [base, ramp_s],
    [base, quiet_s],
  ],
  thresholds: slos({ purchase: 500 }),
});

function buy(match, random) {
  // Without the page there is no button to press.
  if (readMatch(params, match).status === 200) purchase(params, match, uniqueName(params), random);
}

export function warmup() {
  const random = randomness(params);
  arrive(random);
  buy(warmupMatch(random), random);
}

export default function main() {
  const random = randomness(params);
  arrive(random);
  buy(wantedMatch(params, random), random);
}

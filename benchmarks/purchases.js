// What the benchmarks offer: buyers of ten matches at a steady rate, after a short warm-up at the same rate.

import { arrive, randomness, uniqueName, wantedMatch, warmupMatch } from '../scenarios/lib/arrivals.js';
import { purchase } from '../scenarios/lib/journeys.js';
import { slos, steady } from '../scenarios/lib/options.js';
import { load } from '../scenarios/lib/params.js';

const params = load({ rate: 100, duration: 18, hotShare: 0.2, journey_s: 5 });

export const options = steady({
  params,
  warmup_s: 2,
  meta: { title: 'buyers at a steady rate', goal: 'purchase', reads: ['HOT_SHARE'], levels: { stock: 1000000 } },
  thresholds: slos({ purchase: 1000 }),
});

export function warmup() {
  const random = randomness(params);
  arrive(random);
  purchase(params, warmupMatch(random), uniqueName(params));
}

export default function main() {
  const random = randomness(params);
  arrive(random);
  purchase(params, wantedMatch(params, random), uniqueName(params));
}

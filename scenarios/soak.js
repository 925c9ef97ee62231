// Half an hour of what a sale does all day: visitors look at a match, one in four buys.

import { arrive, randomness, uniqueName, wantedMatch, warmupMatch } from './lib/arrivals.js';
import { purchase, readMatch } from './lib/journeys.js';
import { slos, steady } from './lib/options.js';
import { load } from './lib/params.js';

const BUYERS = 0.25;

const params = load({ rate: 40, duration: 1800, hotShare: 0.2, journey_s: 5 });

export const options = steady({
  params,
  meta: {
    title: 'a sale that goes on and on',
    asks: 'Is the sale after half an hour as fast as in its first minute, or does something leak?',
    look_at:
      'the course of each figure, not its mean: whether latency climbs, whether the memory of app, PostgreSQL ' +
      'and Redis grows without end, whether the last minute sells what the first one sold. Longer is better: ' +
      '--set duration=7200.',
    goal: 'purchase',
    reads: ['HOT_SHARE'],
    levels: { stock: 5000000 },
  },
  thresholds: slos({ match: 200, purchase: 300 }),
});

function visit(random, match) {
  arrive(random);
  if (readMatch(params, match).status === 200 && random() < BUYERS) purchase(params, match, uniqueName(params));
}

export function warmup() {
  const random = randomness(params);
  visit(random, warmupMatch(random));
}

export default function main() {
  const random = randomness(params);
  visit(random, wantedMatch(params, random));
}

// Visitors look at the list of matches, then at one of them. Nothing is bought.

import { arrive, randomness, wantedMatch, warmupMatch } from './lib/arrivals.js';
import { listMatches, readMatch } from './lib/journeys.js';
import { slos, steady } from './lib/options.js';
import { load } from './lib/params.js';

const params = load({ rate: 150, duration: 30, hotShare: 0.2, journey_s: 2 });

export const options = steady({
  params,
  meta: {
    title: 'visitors look around',
    asks: 'How fast are reads at a steady rate, and what does the cache save?',
    goal: 'match',
    reads: ['HOT_SHARE'],
    levels: {},
  },
  thresholds: slos({ matches: 200, match: 200 }),
});

function look(random, match) {
  arrive(random);
  listMatches(params);
  readMatch(params, match);
}

export function warmup() {
  const random = randomness(params);
  look(random, warmupMatch(random));
}

export default function main() {
  const random = randomness(params);
  look(random, wantedMatch(params, random));
}

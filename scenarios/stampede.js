// Everybody reloads the page of one match at the same second, and each time the cache has just forgotten it.
//
// Nobody has asked for the match before the window: the cache is cold. Its entries live shorter than a second, so each
// crowd finds none. Without single_flight every request of a crowd asks PostgreSQL for the same row.

import { sleep } from 'k6';

import { arrive, randomness, warmupMatch } from './lib/arrivals.js';
import { readMatch } from './lib/journeys.js';
import { slos, transient } from './lib/options.js';
import { load } from './lib/params.js';

const HOT_MATCH = 1;

const params = load({ rate: 150, duration: 30, journey_s: 3 });

export const options = transient({
  params,
  meta: {
    title: 'a crowd at a cold cache',
    asks: 'What does a cache save when all who ask come in the moment in which it is empty?',
    look_at:
      "--vary single_flight=off,on: PostgreSQL's time for one request, the connection pool's queue in the " +
      'second of a crowd, and p95 beside p50.',
    goal: 'match',
    levels: { cache: 'on', cache_ttl_s: 0.5 },
  },
  prewarm: { rate: params.rate / 3, duration_s: 5 },
  startRate: params.rate,
  stages: [[params.rate, params.duration_s]],
  thresholds: slos({ match: 500 }),
});

export function warmup() {
  const random = randomness(params);
  arrive(random);
  readMatch(params, warmupMatch(random));
}

export default function main() {
  sleep(1 - (Date.now() % 1000) / 1000); // until the next full second, with all who came in this one
  readMatch(params, HOT_MATCH);
}

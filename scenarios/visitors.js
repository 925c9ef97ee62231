// A number of users who look around, each a page about every second: the closed counterpart of `browse` (factor vus).

import { sleep } from 'k6';

import { randomness, wantedMatch, warmupMatch } from './lib/arrivals.js';
import { listMatches, readMatch } from './lib/journeys.js';
import { closed, slos } from './lib/options.js';
import { load } from './lib/params.js';

const PAUSE_S = 1; // before each page, half to one and a half of it

const params = load({ duration: 30, vus: 50, hotShare: 0.2 });

export const options = closed({
  params,
  meta: {
    title: 'users look around',
    asks: 'How fast are pages for this many users, and how many requests a second do they make?',
    look_at:
      "requests per second against the number of users (each asks once in a second and its answer's time), " +
      'latency, and that no resource is near its end.',
    goal: 'match',
    reads: ['HOT_SHARE'],
    levels: {},
  },
  thresholds: slos({ matches: 200, match: 200 }, { users: true }),
});

function look(random, match) {
  sleep(PAUSE_S * (0.5 + random()));
  listMatches(params);
  sleep(PAUSE_S * (0.5 + random()));
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

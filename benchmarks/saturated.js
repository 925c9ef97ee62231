// As many purchases as a few buyers can make who never pause: the load of benchmarks.stacks that fills the system.

import { randomness, uniqueName, wantedMatch, warmupMatch } from '../scenarios/lib/arrivals.js';
import { purchase } from '../scenarios/lib/journeys.js';
import { slos } from '../scenarios/lib/options.js';
import { load } from '../scenarios/lib/params.js';

const WARMUP_S = 5;
// Enough to keep both cores busy, and few enough that none of them waits long for one of the pool's ten connections.
const BUYERS = 16;

const params = load({ rate: 1, duration: 20, hotShare: 0.2, journey_s: 5 });
const buyers = { executor: 'constant-vus', vus: BUYERS, gracefulStop: '5s' };

export const options = {
  scenarios: {
    warmup: { ...buyers, duration: `${WARMUP_S}s`, exec: 'warmup' },
    main: { ...buyers, duration: `${params.duration_s}s`, startTime: `${WARMUP_S}s` },
  },
  thresholds: slos({ purchase: 1000 }),
  discardResponseBodies: true,
  ext: {
    ticketbench: {
      title: 'buyers who never pause', asks: 'How many purchases a second are there at most?', shape: 'steady',
      goal: 'purchase', warmup: ['warmup'], reads: ['HOT_SHARE'], levels: { stock: 1000000 },
    },
  },
};

export function warmup() {
  purchase(params, warmupMatch(randomness(params)), uniqueName(params));
}

export default function main() {
  purchase(params, wantedMatch(params, randomness(params)), uniqueName(params));
}

// Buyers of ten matches, at a rate that lasts: no match sells out.

import { Rate } from 'k6/metrics';

import { arrive, randomness, uniqueName, wantedMatch, warmupMatch } from './lib/arrivals.js';
import { hasTicket, purchase } from './lib/journeys.js';
import { slos, steady } from './lib/options.js';
import { load } from './lib/params.js';

const params = load({ rate: 100, duration: 30, hotShare: 0.2, journey_s: 5 });
const sold = new Rate('purchase_sold');

export const options = steady({
  params,
  meta: {
    title: 'buyers at a steady rate',
    asks: 'How many purchases a second does the sale sustain, and what does each one cost?',
    goal: 'purchase',
    reads: ['HOT_SHARE'],
    levels: { stock: 1000000 },
  },
  thresholds: { ...slos({ purchase: 300 }), 'purchase_sold{scenario:main}': ['rate>0.99'] },
});

export function warmup() {
  const random = randomness(params);
  arrive(random);
  purchase(params, warmupMatch(random), uniqueName(params), random);
}

export default function main() {
  const random = randomness(params);
  arrive(random);
  const response = purchase(params, wantedMatch(params, random), uniqueName(params), random);
  if (response.status !== 402) sold.add(hasTicket(response)); // whose payment is declined gets no ticket, rightly
}

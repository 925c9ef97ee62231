// A number of users at the gate, each with the next ticket as soon as one is let in: the closed counterpart of
// `validate` (factor vus). Each validation hashes, so that CPU is what runs out.

import exec from 'k6/execution';

import { validateTicket } from './lib/journeys.js';
import { closed, slos } from './lib/options.js';
import { load } from './lib/params.js';

const WARMUP_TICKETS_FROM = 15000; // the window counts from the first seeded ticket on

const params = load({ duration: 30, vus: 50 });

export const options = closed({
  params,
  meta: {
    title: 'a queue at each gate',
    asks: 'How many validations a second are the most, and how long does each take when all are waiting?',
    look_at:
      "the app's CPU and its event loop, validations per second (what the cores do), and latency, which is the " +
      'number of users divided by that.',
    goal: 'validate',
    levels: {},
  },
  thresholds: slos({ validate: 200 }, { users: true }),
});

export function warmup() {
  validateTicket(params, WARMUP_TICKETS_FROM + exec.scenario.iterationInTest);
}

export default function main() {
  validateTicket(params, exec.scenario.iterationInTest);
}

// The doors open: tickets are validated, and each validation hashes, so that CPU is what runs out.

import exec from 'k6/execution';

import { arrive, randomness } from './lib/arrivals.js';
import { validateTicket } from './lib/journeys.js';
import { slos, steady } from './lib/options.js';
import { load } from './lib/params.js';

const WARMUP_TICKETS_FROM = 15000; // the window counts from the first seeded ticket on

const params = load({ rate: 50, duration: 30, journey_s: 4 });

export const options = steady({
  params,
  meta: {
    title: 'tickets at the door',
    asks: 'How many validations a second does a core do, and what happens to the others while it hashes?',
    look_at:
      "the app's CPU and its event loop: while one ticket is hashed every other request of the worker waits " +
      '(--vary validate_in_loop=on,off, --vary workers=1,2), and the validations per second that a core does.',
    goal: 'validate',
    levels: {},
  },
  thresholds: slos({ validate: 200 }),
});

export function warmup() {
  arrive(randomness(params));
  validateTicket(params, WARMUP_TICKETS_FROM + exec.scenario.iterationInTest);
}

export default function main() {
  arrive(randomness(params));
  validateTicket(params, exec.scenario.iterationInTest);
}

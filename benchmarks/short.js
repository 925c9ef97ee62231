// A load of a few seconds, for benchmarks.overhead: how long it lasts is known to the millisecond, so what a run takes
// beyond it is ticketbench's own.

import http from 'k6/http';

const RATE = Number(__ENV.RATE || 20);
const SECONDS = Number(__ENV.DURATION || 3);
const WARMUP_SECONDS = 7; // the shortest of the bundled scenarios': spike's

const constant = { executor: 'constant-arrival-rate', rate: RATE, timeUnit: '1s', preAllocatedVUs: 20 };

export const options = {
  scenarios: {
    warmup: { ...constant, duration: `${WARMUP_SECONDS}s`, gracefulStop: '0s' },
    main: { ...constant, startTime: `${WARMUP_SECONDS}s`, duration: `${SECONDS}s`, gracefulStop: '5s' },
  },
  ext: {
    ticketbench: {
      title: 'a short load', asks: 'What does a run take beyond it?', shape: 'transient', warmup: ['warmup'],
    },
  },
};

export default function () {
  http.get(`${__ENV.BASE_URL}/matches`, { tags: { name: 'matches' } });
}

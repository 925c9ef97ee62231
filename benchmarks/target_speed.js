// The request of the bundled purchase scenario, on the one hot match, evenly spaced: no ACK lines, no jitter, no second
// attempt, so that k6 takes as little as it can of the cores that it shares with the system under test.
//
// Given BASE_URL, TRIAL (unique for ever), RATE, WARMUP and DURATION (seconds). Requests that begin after the warm-up
// carry the tag phase=main.

import exec from 'k6/execution';
import http from 'k6/http';
import { Counter } from 'k6/metrics';

const RATE = Number(__ENV.RATE);
const WARMUP_S = Number(__ENV.WARMUP);
const DURATION_S = Number(__ENV.DURATION);
// Little's law: as many users are busy at a mean latency of a quarter of a second. A system that needs more has missed
// the limit anyway; each user costs k6 a millisecond of CPU to make.
const USERS = Math.ceil(RATE / 4) + 10;

const sold = new Counter('sold');

export const options = {
  scenarios: {
    buyers: {
      executor: 'constant-arrival-rate',
      rate: RATE,
      timeUnit: '1s',
      duration: `${WARMUP_S + DURATION_S}s`,
      preAllocatedVUs: USERS,
      maxVUs: USERS,
      gracefulStop: '5s',
    },
  },
  // Never asserted: a threshold is how k6 is asked for the figures of a part of the requests.
  thresholds: {
    'http_req_duration{phase:main}': ['p(95)>=0'],
    'http_reqs{phase:main}': ['count>=0'],
    'sold{phase:main}': ['count>=0'],
  },
  discardResponseBodies: true,
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
};

export default function main() {
  const key = `${__ENV.TRIAL}-${exec.scenario.iterationInTest}`;
  const tags = { name: 'purchase', phase: exec.scenario.progress * (WARMUP_S + DURATION_S) < WARMUP_S ? 'warmup' : 'main' };
  const response = http.post(`${__ENV.BASE_URL}/matches/1/purchases`, JSON.stringify({ buyer: key }), {
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': key }, tags, timeout: '5s',
  });
  if (response.status === 201) sold.add(1, tags);
}

// The shop's own load test, as its authors would have written it: plain k6, nothing of ticketbench's library.

import http from 'k6/http';
import { check } from 'k6';
import { Counter } from 'k6/metrics';

const CAPACITY = 50;
const RATE = Number(__ENV.RATE || 30);
const DURATION = Number(__ENV.DURATION || 12);
const HEADERS = { 'Content-Type': 'application/json', ...JSON.parse(__ENV.HEADERS || '{}') };
const soldOfMatch1 = new Counter('sold_of_match_1');

const flow = (exec, rate) => ({
  executor: 'constant-arrival-rate', exec, rate, timeUnit: '1s', duration: `${DURATION}s`,
  preAllocatedVUs: 60, maxVUs: 60, gracefulStop: '10s',
});

export const options = {
  scenarios: { buyers: flow('buyer', RATE), visitors: flow('visitor', 4), logins: flow('login', 2) },
  thresholds: {
    'http_req_failed{name:buy}': ['rate<0.01'],
    'http_req_duration{name:login}': ['p(95)<100'],
    dropped_iterations: ['count<1'],
    sold_of_match_1: [`count<=${CAPACITY}`], // more tickets than seats
  },
  ext: {
    ticketbench: {
      title: 'the course shop', asks: 'Does the shop sell each seat once?', shape: 'transient', goal: 'buy',
      preflight: '/matches',
    },
  },
};

export function buyer() {
  const answer = http.post(`${__ENV.BASE_URL}/matches/1/tickets`, JSON.stringify({ buyer: 'bob' }), {
    headers: HEADERS, tags: { name: 'buy' }, responseCallback: http.expectedStatuses(201, 409),
  });
  check(answer, { 'sold or sold out': (r) => r.status === 201 || r.status === 409 });
  if (answer.status === 201) soldOfMatch1.add(1);
}

export function visitor() {
  http.get(`${__ENV.BASE_URL}/matches`, { tags: { name: 'matches' } });
  http.get(`${__ENV.BASE_URL}/matches/1/seats`, { tags: { name: 'seats' } }); // the route was removed last term
}

export function login() {
  http.post(`${__ENV.BASE_URL}/login`, JSON.stringify({ name: 'alice', password: 'secret' }), {
    headers: HEADERS, tags: { name: 'login' },
  });
}

// A load test of your own system: change what is marked CHANGE, and keep the rest until you know why not.
//
//   ticketbench run --plan plan.toml                 uses this script; the plan beside it says where the system is
//   ticketbench scenarios check scenario.js          reads it without sending anything

import http from 'k6/http';
import { check, sleep } from 'k6';

// What ticketbench tells every script. Its options --set rate=50 and --set duration=60 arrive here as well.
const BASE_URL = __ENV.BASE_URL;
const RATE = Number(__ENV.RATE || 10); // journeys per second
const DURATION = Number(__ENV.DURATION || 25); // seconds that count; below 20 s nothing steady is measured
const HEADERS = JSON.parse(__ENV.HEADERS || '{}'); // those of --header, TICKETBENCH_HEADERS and the plan

// Open load: journeys begin when they are due, however slow the system is, as visitors do. Virtual users only have to be
// enough: rate x the longest time that one journey may take.
function load(exec, startTime, duration) {
  const users = Math.max(5, Math.ceil(RATE * 5));
  return {
    executor: 'constant-arrival-rate', exec, startTime: `${startTime}s`, duration: `${duration}s`,
    rate: Math.max(1, Math.round(RATE * 10)), timeUnit: '10s',
    preAllocatedVUs: users, maxVUs: users, gracefulStop: '10s',
  };
}

export const options = {
  scenarios: {
    warmup: load('visit', 0, 5), // never counts: connections, caches and the just-in-time compiler get ready
    main: load('visit', 5, DURATION),
  },
  // What is good enough (your SLOs). A server that is down answers in 0 ms, so failures need a threshold of their own.
  thresholds: {
    'http_req_failed{scenario:main}': ['rate<0.01'],
    'dropped_iterations{scenario:main}': ['count<1'],
    'http_req_duration{scenario:main,name:home}': ['p(95)<500'], // CHANGE: milliseconds
  },
  ext: {
    ticketbench: {
      title: 'visitors at a steady rate', // CHANGE: what this load is
      asks: 'How long does a visitor wait?', // CHANGE: the question that this test answers
      shape: 'steady',
      goal: 'home', // the name tag of the requests whose success counts
      warmup: ['warmup'],
      // preflight: '/health', // asked once before the load; without it the target's own address is
    },
  },
};

export function visit() {
  sleep(Math.random()); // visitors do not come in step, and even spacing would hide queueing
  // CHANGE: the requests of one journey. Give each its own name tag: the report has a line for each.
  const home = http.get(`${BASE_URL}/`, { headers: HEADERS, tags: { name: 'home' }, timeout: '10s' });
  check(home, { 'it is the right page': (answer) => answer.status === 200 }); // CHANGE: look into answer.body too

  // const answer = http.post(`${BASE_URL}/login`, JSON.stringify({ name: 'alice', password: 'secret' }), {
  //   headers: { ...HEADERS, 'Content-Type': 'application/json' }, tags: { name: 'login' },
  // });
}

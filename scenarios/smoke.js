// Does every route of the sale work at all? A few requests, each checked for its content. No claim about speed.

import http from 'k6/http';
import { check } from 'k6';

import { uniqueName } from './lib/arrivals.js';
import { hasTicket, listMatches, purchase, readMatch } from './lib/journeys.js';
import { HEADERS, load } from './lib/params.js';

const ROUNDS = 3;
const MATCH = 2; // a million tickets: it is never sold out

const params = load({ rate: 1, duration: 1, journey_s: 1 });

export const options = {
  scenarios: {
    main: { executor: 'per-vu-iterations', vus: 1, iterations: ROUNDS, maxDuration: '30s', gracefulStop: '5s' },
  },
  thresholds: {
    'checks{scenario:main}': ['rate==1'],
    'http_req_failed{scenario:main}': ['rate==0'],
    // A script that stops half-way would leave its later checks out: every round must have come to its end.
    'iterations{scenario:main}': [`count==${ROUNDS}`],
    'http_reqs{scenario:main}': [`count>=${ROUNDS * 11}`],
  },
  ext: {
    ticketbench: {
      title: 'does it work at all',
      asks: 'Does every route give the right answer?',
      shape: 'functional',
      goal: 'purchase',
      warmup: [],
      levels: {},
    },
  },
};

function request(method, path, name, expected, body = null, headers = {}) {
  return http.request(method, `${params.baseUrl}${path}`, body === null ? null : JSON.stringify(body), {
    headers: { ...HEADERS, 'Content-Type': 'application/json', ...headers },
    tags: { name },
    timeout: '5s',
    responseCallback: http.expectedStatuses(expected),
  });
}

// Each check is a function of its own, so that an answer that is no JSON fails that check and not the script. What
// fails is said, with the answer's status.
function checked(response, checks) {
  const guarded = {};
  for (const [name, holds] of Object.entries(checks)) {
    guarded[name] = (answer) => {
      let fault = '';
      try {
        if (holds(answer)) return true;
      } catch (error) {
        fault = `, ${error.message}`;
      }
      console.error(`not so: ${name} (${answer.request.method} ${answer.request.url}: ${answer.status}${fault})`);
      return false;
    };
  }
  check(response, guarded);
}

function readRoutes() {
  checked(request('GET', '/health', 'health', 200), { 'it is alive': (answer) => answer.status === 200 });
  checked(request('GET', '/ready', 'ready', 200), { 'it is ready': (answer) => answer.status === 200 });
  checked(listMatches(params), {
    'the list names the match': (answer) => new RegExp(`"id":\\s*${MATCH}\\b`).test(answer.body),
  });
  checked(readMatch(params, MATCH), { 'the match is the one asked for': (answer) => answer.json('id') === MATCH });
  checked(request('GET', '/matches/999999999', 'unknown match', 404), {
    'an unknown match is a 404': (answer) => answer.status === 404,
  });
}

function buy() {
  const key = uniqueName(params);
  const first = purchase(params, MATCH, key);
  checked(first, {
    'a purchase gives a ticket': (answer) => hasTicket(answer) && Number.isInteger(answer.json('ticket_id')),
    'the ticket is for the match': (answer) => answer.json('match_id') === MATCH,
    'the answer repeats the key': (answer) => answer.json('idempotency_key') === key,
  });
  checked(purchase(params, MATCH, key), {
    'the same key gives the same ticket': (answer) => answer.json('ticket_id') === first.json('ticket_id'),
  });
  const path = `/matches/${MATCH}/purchases`;
  checked(request('POST', path, 'bad purchase', 422, {}, { 'Idempotency-Key': `${key}-bad` }), {
    'a purchase without a buyer is a 422': (answer) => answer.status === 422,
  });
  checked(request('POST', path, 'bad purchase', 422, { buyer: key }), {
    'a purchase without a key is a 422': (answer) => answer.status === 422,
  });
  return first;
}

function validate(ticket) {
  const codes = { 'a sold ticket is valid': () => ticket.json('code'), 'a seeded ticket is valid': () => 'SEED-000001' };
  for (const [name, code] of Object.entries(codes)) {
    const answer = request('POST', `/tickets/${ticket.status === 201 ? code() : 'none'}/validation`, 'validate', 200);
    checked(answer, { [name]: () => answer.status === 200 });
  }
}

export default function main() {
  readRoutes();
  validate(buy());
}

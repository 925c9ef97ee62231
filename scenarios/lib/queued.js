// A purchase that a sale with checkout=queue has accepted: ask for its outcome until it is decided.

import http from 'k6/http';
import { sleep } from 'k6';
import { Counter, Rate, Trend } from 'k6/metrics';

import { HEADERS } from './params.js';

// What a sale is going to do is told to the script, so that its requests have their names before they are answered:
// `purchase` is what a buyer waits for, whether that is one request or several.
export const QUEUED = __ENV.CHECKOUT === 'queue';

const FIRST_WAIT_S = 0.05;
const LONGEST_WAIT_S = 1; // what Retry-After asks for: each time costs the sale as much as looking at a match
const PATIENCE_S = 5; // as for the answer to a single request
const TIMED_OUT = 1050; // k6's error_code of a request that did
const TOLD = http.expectedStatuses(200, 202, 402, 409);
const ENDED = new Set([200, 402, 404, 409, 410, 422]);

// k6's own metrics, by their names: a purchase is added to them as if it were one request. Its method is QUEUED, so that
// whoever counts what the sale has answered can leave it out.
const durations = new Trend('http_req_duration', true);
const requests = new Counter('http_reqs');
const failures = new Rate('http_req_failed');

function decided(response) {
  return ENDED.has(response.status) || (response.status === 503 && String(response.body).includes('"given_up"'));
}

/**
 * Ask where `accepted`, a 202, says until the purchase is decided, at most PATIENCE_S after `began` (ms). Waits grow from
 * 50 ms to a second, each shortened by up to half by `random`, so that buyers of one moment do not ask in step.
 * Returns the last answer: 200 with the ticket, the status of a refusal, or 202 and the like where nothing was decided.
 */
export function awaitOutcome(params, accepted, began, random) {
  const place = `${params.baseUrl}${accepted.headers.Location}`;
  let wait_s = FIRST_WAIT_S;
  for (;;) {
    sleep(wait_s * (1 - random() / 2));
    const left_ms = began + PATIENCE_S * 1000 - Date.now();
    const response = http.get(place, {
      headers: HEADERS, tags: { name: 'outcome' }, timeout: Math.max(1, left_ms), responseType: 'text',
      responseCallback: TOLD,
    });
    wait_s = Math.min(LONGEST_WAIT_S, wait_s * 2);
    if (decided(response) || Date.now() + wait_s * 1000 > began + PATIENCE_S * 1000) return response;
  }
}

/** Note a whole purchase, from `began` (ms) until `last` told what became of it, as one request called `purchase`. */
export function notePurchase(began, last) {
  const undecided = !decided(last) && last.status < 300;
  const expected = !undecided && [200, 201, 402, 409].includes(last.status);
  const tags = {
    name: 'purchase', method: 'QUEUED', expected_response: String(expected),
    // 201, as where a purchase is answered at once; a buyer who has given up has got no answer
    status: undecided ? '0' : String(last.status === 200 ? 201 : last.status),
  };
  if (undecided) tags.error_code = String(TIMED_OUT);
  else if (!expected) tags.error_code = String(last.error_code);
  durations.add(Date.now() - began, tags);
  requests.add(1, tags);
  failures.add(!expected, tags);
}

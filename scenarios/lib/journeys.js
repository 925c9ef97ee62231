// What a visitor does: one function for each request, with the tag that its series and SLOs are found by.

import http from 'k6/http';
import { sleep } from 'k6';

import { HEADERS } from './params.js';
import { awaitOutcome, notePurchase, QUEUED } from './queued.js';

// A visitor gives up after this long. The target answers 503 after 2 s without a connection, so that only a target
// that hangs gets here.
const PATIENCE = '5s';
const LONGEST_RETRY_WAIT_S = 1;
const DEFAULT_RETRY_WAIT_S = 0.5;
const REQUEST_TIMEOUT = 1050; // k6's error_code
const ANSWERED = http.expectedStatuses(201, 202, 402, 409); // an empty stock and a declined payment are right answers
const CREATED = http.expectedStatuses(201);
const PAID = http.expectedStatuses(201, 402); // a declined payment is a right answer
const OK = http.expectedStatuses(200);

/** GET /matches. */
export function listMatches(params) {
  return http.get(`${params.baseUrl}/matches`, {
    headers: HEADERS, tags: { name: 'matches' }, timeout: PATIENCE, responseCallback: OK,
  });
}

/** GET /matches/{id}. */
export function readMatch(params, match) {
  return http.get(`${params.baseUrl}/matches/${match}`, {
    headers: HEADERS, tags: { name: 'match' }, timeout: PATIENCE, responseCallback: OK,
  });
}

/** POST /tickets/{code}/validation for one of the 20 000 seeded tickets; `number` counts from 0 and wraps around. */
export function validateTicket(params, number) {
  const code = `SEED-${String((number % 20000) + 1).padStart(6, '0')}`;
  return http.post(`${params.baseUrl}/tickets/${code}/validation`, null, {
    headers: HEADERS, tags: { name: 'validate' }, timeout: PATIENCE, responseCallback: OK,
  });
}

/**
 * POST /matches/{id}/purchases as `key`, which is also the buyer. After a 503 or a time-out it is tried once more with
 * the same key, as late as Retry-After says but at most a second later: whether the first attempt sold a ticket is
 * unknown, and the key keeps it from selling two. A purchase that is accepted with 202 is asked for until it is decided;
 * its duration is then that of the whole, and the first answer's is found under `accept`. A ticket is noted as one ACK
 * line, which the ledger audit is held against, and so is an acceptance, with ticket 0. Returns the last response.
 */
export function purchase(params, match, key, random = Math.random) {
  const began = Date.now();
  let response = attempt(params, match, key);
  if (response.status === 503 || response.error_code === REQUEST_TIMEOUT) {
    sleep(retryWait(response));
    response = attempt(params, match, key);
  }
  if (response.status === 202) {
    acknowledge(match, key, 0);
    response = awaitOutcome(params, response, began, random);
  }
  if (hasTicket(response)) acknowledge(match, key, response.json('ticket_id'));
  if (QUEUED) notePurchase(began, response);
  return response;
}

/** Whether a purchase has ended with a ticket. */
export function hasTicket(response) {
  return response.status === 201 || response.status === 200;
}

function acknowledge(match, key, ticket) {
  console.log(`ACK ${JSON.stringify({ at: Date.now(), match, key, ticket })}`);
}

/** POST /api/buyers as `name`, who has no account yet. Returns the token, or null where the answer is no success. */
export function register(params, name) {
  const account = { email: `${name.toLowerCase()}@example.org`, name: 'A Buyer', password: 'correct horse battery' };
  const response = http.post(`${params.baseUrl}/api/buyers`, JSON.stringify(account), {
    headers: { ...HEADERS, 'Content-Type': 'application/json' }, tags: { name: 'register' }, timeout: PATIENCE,
    responseType: 'text', responseCallback: CREATED,
  });
  return response.status === 201 ? response.json().token : null;
}

/** POST /api/cart/holds: one ticket of a match goes into the cart. Returns whether it is there. */
export function hold(params, token, match) {
  const body = JSON.stringify({ match_id: match, quantity: 1 });
  return http.post(`${params.baseUrl}/api/cart/holds`, body, {
    headers: asBuyer(token), tags: { name: 'hold' }, timeout: PATIENCE, responseCallback: ANSWERED,
  }).status === 201;
}

/**
 * POST /api/checkouts as `key`. Each ticket is noted as an ACK line. Its own key is the sale's affair: an empty one has
 * the audit look for the ticket's number. Returns whether it was paid.
 */
export function checkout(params, token, key) {
  const response = http.post(`${params.baseUrl}/api/checkouts`, null, {
    headers: { ...asBuyer(token), 'Idempotency-Key': key }, tags: { name: 'checkout' }, timeout: PATIENCE,
    responseType: 'text', responseCallback: PAID,
  });
  if (response.status !== 201) return false;
  for (const ticket of response.json().tickets) {
    console.log(`ACK ${JSON.stringify({ at: Date.now(), match: ticket.match_id, key: '', ticket: ticket.ticket_id })}`);
  }
  return true;
}

/** GET /api/tickets. */
export function myTickets(params, token) {
  return http.get(`${params.baseUrl}/api/tickets`, {
    headers: asBuyer(token), tags: { name: 'tickets' }, timeout: PATIENCE, responseCallback: OK,
  });
}

const asBuyer = (token) => ({ ...HEADERS, 'Content-Type': 'application/json', Authorization: `Bearer ${token}` });

function attempt(params, match, key) {
  return http.post(`${params.baseUrl}/matches/${match}/purchases`, JSON.stringify({ buyer: key }), {
    headers: { ...HEADERS, 'Content-Type': 'application/json', 'Idempotency-Key': key },
    tags: { name: QUEUED ? 'accept' : 'purchase' }, timeout: PATIENCE, responseType: 'text', responseCallback: ANSWERED,
  });
}

function retryWait(response) {
  const asked = Number.parseFloat(response.headers['Retry-After']);
  return Number.isFinite(asked) ? Math.min(Math.max(asked, 0), LONGEST_RETRY_WAIT_S) : DEFAULT_RETRY_WAIT_S;
}

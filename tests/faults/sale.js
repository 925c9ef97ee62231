// Six seconds that have every phase: two of warm-up, four of window, and a drain, because each buyer stays for a while.
import http from 'k6/http';
import exec from 'k6/execution';
import { sleep } from 'k6';

const load = { executor: 'constant-arrival-rate', timeUnit: '1s', preAllocatedVUs: 80, maxVUs: 80, gracefulStop: '5s' };

export const options = {
  scenarios: {
    warmup: { ...load, rate: 20, duration: '2s' },
    main: { ...load, rate: 40, duration: '4s', startTime: '2s' },
  },
  thresholds: { 'http_req_failed{scenario:main}': ['rate<0.01'], 'http_reqs{scenario:main}': ['count>0'] },
  ext: {
    ticketbench: {
      title: 'Six seconds to break', asks: 'what becomes of a run that breaks here?', shape: 'transient',
      goal: 'purchase', warmup: ['warmup'],
    },
  },
};

export default function () {
  const { name, iterationInTest } = exec.scenario;
  const key = `${__ENV.TRIAL}-${name}-${iterationInTest}`;
  const match = (name === 'warmup' ? 11 : 1) + (iterationInTest % 10);
  const response = http.post(`${__ENV.BASE_URL}/matches/${match}/purchases`, JSON.stringify({ buyer: key }), {
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': key },
    tags: { name: 'purchase' }, timeout: '5s', responseCallback: http.expectedStatuses(201, 409),
  });
  if (response.status === 201) {
    const ticket = response.json();
    console.log(`ACK ${JSON.stringify({ at: Date.now(), match, key, ticket: ticket.ticket_id })}`);
  }
  sleep(1);
}

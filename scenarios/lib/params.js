// What a scenario is told: the target, the trial, and the load, all through k6's environment (-e NAME=value).

const JITTERED_S = 1; // see arrivals.js

function number(name, fallback, { low, high, whole = false }, problems) {
  const text = (__ENV[name] || '').trim();
  if (text === '') return fallback;
  const value = Number(text);
  const fits = Number.isFinite(value) && value >= low && value <= high && (!whole || Number.isInteger(value));
  if (!fits) {
    problems.push(`${name}=${text} is not ${whole ? 'a whole number' : 'a number'} from ${low} to ${high}`);
    return fallback;
  }
  return value;
}

function address(problems) {
  const text = (__ENV.BASE_URL || '').trim().replace(/\/+$/, '');
  if (text === '') problems.push('BASE_URL is missing: the address of the target, such as http://127.0.0.1:8000');
  else if (!/^https?:\/\/[^/]+/.test(text)) problems.push(`BASE_URL=${text} is not an http or https address`);
  return text;
}

/** The headers of --header, TICKETBENCH_HEADERS and the plan: every request sends them along. They may be secrets. */
export const HEADERS = JSON.parse(__ENV.HEADERS || '{}');

/**
 * Read the load parameters. `defaults` has `rate` (journeys per second), `duration` (seconds of the window) and, where
 * the scenario buys, `hotShare`. `journey_s` is how long one journey may keep a virtual user busy when the target is
 * in trouble: by Little's law rate x journey_s users are the most that can be needed at a time, so that a slow target
 * shows as latency and not as dropped iterations. A closed model has `vus` instead, the number of its users. Throws one
 * error that names every bad value.
 */
export function load({ rate = 1, duration, hotShare = 0, journey_s = 1, vus }) {
  const problems = [];
  const params = {
    baseUrl: address(problems),
    trial: (__ENV.TRIAL || '').trim() || `manual-${Date.now()}`,
    seed: (__ENV.SEED || '').trim() || '1',
    rate: number('RATE', rate, { low: 0.1, high: 20000 }, problems),
    duration_s: number('DURATION', duration, { low: 1, high: 7200 }, problems),
    hotShare: number('HOT_SHARE', hotShare, { low: 0, high: 1 }, problems),
  };
  const enough = Math.ceil(params.rate * (JITTERED_S + journey_s));
  params.vus = number('VUS', vus === undefined ? Math.max(5, enough) : vus, { low: 1, high: 20000, whole: true }, problems);
  if (problems.length > 0) throw new Error(problems.join('; '));
  return params;
}

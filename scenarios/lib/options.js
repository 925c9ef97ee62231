// k6 options: a warm-up, then the window that counts, and the SLOs over the window.

// k6 takes whole numbers only, so rates are given for ten seconds: a tenth of a journey per second is the finest step.
const TIME_UNIT_S = 10;
const DRAIN = '10s'; // longer than the longest journey: jitter, two waits of 2 s, a second between them

export const seconds = (value) => `${Math.round(value * 1000)}ms`;
export const perTimeUnit = (rate) => Math.max(1, Math.round(rate * TIME_UNIT_S));

const unit = () => ({ timeUnit: seconds(TIME_UNIT_S) });

// All users are made before the load begins: making them in the middle would take CPU from what is measured.
const users = (count) => ({ preAllocatedVUs: count, maxVUs: count });

function constant(rate, duration_s, vus) {
  return {
    executor: 'constant-arrival-rate', rate: perTimeUnit(rate), duration: seconds(duration_s), ...unit(), ...users(vus),
  };
}

function build(meta, scenarios, thresholds) {
  return {
    scenarios,
    thresholds,
    discardResponseBodies: true, // a body is read only where a journey asks for it
    ext: { ticketbench: { warmup: ['warmup'], ...meta } },
  };
}

/** A constant rate: warm-up at the same rate, which hands over to the window without a gap. */
export function steady({ meta, params, warmup_s = 10, drain = DRAIN, thresholds }) {
  return build({ shape: 'steady', ...meta }, {
    warmup: {
      ...constant(params.rate, warmup_s, Math.max(1, Math.ceil(params.vus / 2))), exec: 'warmup', gracefulStop: '5s',
    },
    main: {
      ...constant(params.rate, params.duration_s, params.vus), startTime: seconds(warmup_s), gracefulStop: drain,
    },
  }, thresholds);
}

/**
 * A closed model: `params.vus` users who each ask again when they have their answer. A slow target is asked less, so no
 * rate is held against it; it is for questions that name a number of users. The warm-up has the same users on other data.
 */
export function closed({ meta, params, warmup_s = 10, thresholds }) {
  const vus = params.vus;
  return build({ shape: 'steady', ...meta }, {
    warmup: { executor: 'constant-vus', vus, duration: seconds(warmup_s), exec: 'warmup', gracefulStop: '5s' },
    main: {
      executor: 'constant-vus', vus, duration: seconds(params.duration_s), startTime: seconds(warmup_s),
      gracefulStop: DRAIN,
    },
  }, thresholds);
}

/** A crowd that is there at once, a closed model as well: after a pre-warm on other data and a pause. */
export function crowd({ meta, params, prewarm, pause_s = 2, thresholds }) {
  return build({ shape: 'transient', ...meta }, {
    warmup: {
      ...constant(prewarm.rate, prewarm.duration_s, prewarm.vus), exec: 'warmup', gracefulStop: seconds(pause_s),
    },
    main: {
      executor: 'constant-vus', vus: params.vus, duration: seconds(params.duration_s),
      startTime: seconds(prewarm.duration_s + pause_s), gracefulStop: DRAIN,
    },
  }, thresholds);
}

/**
 * An event: after a pre-warm on other data and a pause, `stages` of [rate at the end, seconds] from `startRate` on.
 * The pause lets the pre-warm's last answers arrive, so that the event begins with an idle target.
 */
export function transient({ meta, params, prewarm, pause_s = 2, startRate, stages, thresholds }) {
  return build({ shape: 'transient', ...meta }, {
    warmup: {
      ...constant(prewarm.rate, prewarm.duration_s, params.vus), exec: 'warmup', gracefulStop: seconds(pause_s),
    },
    main: {
      executor: 'ramping-arrival-rate',
      startTime: seconds(prewarm.duration_s + pause_s),
      startRate: perTimeUnit(startRate),
      stages: stages.map(([rate, duration_s]) => ({ target: perTimeUnit(rate), duration: seconds(duration_s) })),
      gracefulStop: DRAIN,
      ...unit(),
      ...users(params.vus),
    },
  }, thresholds);
}

/**
 * The SLOs that every load scenario has. A refused connection counts as an answer after 0 ms, so latency alone would
 * call a dead server fast: failures, unstarted journeys and the absence of any request are SLOs of their own.
 */
export function slos(p95_ms, { users = false } = {}) {
  const thresholds = {
    'http_req_failed{scenario:main}': ['rate<0.01'],
    'http_reqs{scenario:main}': ['count>0'],
  };
  if (!users) thresholds['dropped_iterations{scenario:main}'] = ['count<1']; // a closed model schedules none
  for (const [name, limit_ms] of Object.entries(p95_ms)) {
    thresholds[`http_req_duration{scenario:main,name:${name},expected_response:true}`] = [`p(95)<${limit_ms}`];
  }
  return thresholds;
}

"""What Grafana shows: the definitions are those of docs/signals.md and docs/judging.md."""

from typing import Final

from scripts.dashboards.form import OF_TRIAL, Dashboard, Line, Panel, Row

SECONDS: Final = "s"
RATIO: Final = "percentunit"
PER_S: Final = "suffix:/s"
NUMBER: Final = "short"
CORES: Final = "suffix: cores"


def rate(metric: str, labels: str = "", by: str = "") -> str:
    """Return a counter's growth per second, summed over all but the labels ``by``."""
    return f"sum{f' by ({by})' if by else ''}(rate({metric}{f'{{{labels}}}' if labels else ''}[$__rate_interval]))"


def events(metric: str, labels: str, by: str = "") -> str:
    """Return how often something happened per second by one of k6's counters, its first time included.

    k6 tells a counter only once it counts, and ``rate`` knows nothing of what came before a first sample: the only
    failure of a trial would never be seen. A trial's counters begin at 0, for they bear its name.
    """
    series = f"{metric}{{{labels}}}"
    growth = f"{series} - ({series} offset $__rate_interval or 0 * {series})"
    return f"(sum{f' by ({by})' if by else ''}({growth}) / ($__rate_interval_ms / 1000))"


# As ticketbench counts a success: a 2xx that the script expected, of the goal's requests.
GOOD: Final = f'{OF_TRIAL},name=~"$goal",expected_response="true",status=~"2.."'
FAILED: Final = f'{OF_TRIAL},expected_response="false"'
APP: Final = 'job="app"'
BUSY: Final = 'mode!~"idle|iowait"'
HIT: Final = f'{APP},result="hit"'
WAITING_FOR_LOCKS: Final = 'wait=~"Lock:.+"'


def latency(quantile: float) -> str:
    """Return a quantile of the successes' durations as k6 measured them."""
    return f"histogram_quantile({quantile}, {rate('k6_http_req_duration_seconds', GOOD)})"


def per(seconds: str, count: str, labels: str = "", by: str = "") -> str:
    """Return the mean seconds of one of ``count``."""
    return f"{rate(seconds, labels, by)} / {rate(count, labels, by)}"


LATENCY: Final = Panel(
    "Latency of successes",
    SECONDS,
    "How long the goal's successful requests took, as the load generator saw it: what a buyer feels. Failures and"
    " answers such as 'sold out' are fast and would flatter it, so they are left out. p95: one request in twenty was"
    " slower.",
    (Line("p50", latency(0.5)), Line("p95", latency(0.95)), Line("p99", latency(0.99))),
)
TRAFFIC: Final = Panel(
    "Traffic",
    PER_S,
    "Offered: what the scenario schedules in its window. Finished: journeys that came to their end. Goodput: the goal's"
    " successes. Offered above finished means that the system or the load generator does not keep up.",
    (
        Line("offered", f"sum(tb_trial_offered_per_s{{{OF_TRIAL}}})"),
        Line("finished", events("k6_iterations_total", OF_TRIAL)),
        Line("goodput", events("k6_http_reqs_total", GOOD)),
    ),
)
ERRORS: Final = Panel(
    "Errors",
    RATIO,
    "The share of requests that failed: an answer that the script did not expect, or none. A 409 after the sell-out is"
    " a right answer and no error.",
    (
        Line(
            "failed",
            f"({events('k6_http_reqs_total', FAILED)} or vector(0)) / {events('k6_http_reqs_total', OF_TRIAL)}",
        ),
    ),
    most=1,
)
ERROR_KINDS: Final = Panel(
    "Errors by kind",
    PER_S,
    "Failed requests by HTTP status, and k6's error code. Status 0: there was no answer, and the code says why (1050 a"
    " time-out, 1212 refused). 503 is the sale's 'busy': no connection or lock in time. Empty where nothing failed.",
    (Line("{{status}} {{error_code}}", events("k6_http_reqs_total", FAILED, "status, error_code")),),
    stacked=True,
)
UTILISATION: Final = Panel(
    "Utilisation",
    RATIO,
    "The busy part of what there is. The resource that reaches 100 % first while goodput no longer rises is the"
    " bottleneck. Pool: connections in use. Event loop: CPU of the thread that serves requests, one core for each"
    " worker. Host: all cores, whoever uses them.",
    (
        Line(
            "connection pool",
            f"clamp_max({rate('target_pool_hold_seconds_total', APP)} / sum(target_pool_max{{{APP}}}), 1)",
        ),
        Line("event loop", f"{rate('target_loop_cpu_seconds_total', APP)} / count(target_inflight{{{APP}}})"),
        Line(
            "host CPU",
            f"{rate('tb_host_cpu_seconds_total', BUSY)} / {rate('tb_host_cpu_seconds_total')}",
        ),
    ),
    most=1,
)
QUEUES: Final = Panel(
    "Queued work",
    NUMBER,
    "How many wait at a time, on average. Work queues in front of the bottleneck. Who waits for a connection may really"
    " wait for a row that the connection's holder wants, so look at the rows first.",
    (
        Line("for a connection", rate("target_pool_wait_seconds_total", APP)),
        Line("for a row", f"{rate('tb_pg_wait_seconds_total', WAITING_FOR_LOCKS)} or 0 * {rate('tb_pg_calls_total')}"),
        Line("for a core", rate("tb_run_delay_seconds_total")),
    ),
)

POOL: Final = Row(
    "Connection pool",
    (
        Panel(
            "Connections in use",
            NUMBER,
            "Connections of the pool that a request holds, on average, and as many as there may be, overflow included.",
            (
                Line("in use", rate("target_pool_hold_seconds_total", APP)),
                Line("at most", f"sum(target_pool_max{{{APP}}})"),
            ),
        ),
        Panel(
            "Requests waiting for a connection",
            NUMBER,
            "Waiter-seconds per second: how many requests stand in front of the pool at a time.",
            (Line("waiting", rate("target_pool_wait_seconds_total", APP)),),
        ),
        Panel(
            "Time per connection",
            SECONDS,
            "How long a request waits for a connection and then holds it. A long hold is what makes others wait.",
            (
                Line("wait", per("target_pool_wait_seconds_total", "target_pool_checkouts_total", APP)),
                Line("hold", per("target_pool_hold_seconds_total", "target_pool_checkouts_total", APP)),
            ),
        ),
    ),
)
POSTGRES: Final = Row(
    "PostgreSQL",
    (
        Panel(
            "Sessions by what they do",
            NUMBER,
            "Sessions at a time, seen ten times a second. CPU: at work. Lock:...: waiting for another one's row."
            " LWLock:WALWrite, IO:...: waiting for the disk. Idle in transaction: the application holds a transaction"
            " open and does something else. Idle sessions are left out.",
            (Line("{{wait}}", rate("tb_pg_wait_seconds_total", 'wait!="idle"', "wait")),),
            stacked=True,
        ),
        Panel(
            "Time per statement",
            SECONDS,
            "Mean time of a statement in PostgreSQL, waiting for locks included.",
            (Line("all statements", per("tb_pg_exec_seconds_total", "tb_pg_calls_total")),),
        ),
        Panel(
            "Transactions",
            PER_S,
            "Commits and rollbacks of the sale's database.",
            (Line("commits", rate("tb_pg_commits_total")), Line("rollbacks", rate("tb_pg_rollbacks_total"))),
        ),
    ),
)
REDIS: Final = Row(
    "Redis",
    (
        Panel(
            "Commands",
            PER_S,
            "What the sale asks Redis for.",
            (Line("{{command}}", rate("tb_redis_commands_total", by="command")),),
            stacked=True,
        ),
        Panel(
            "Time per command",
            SECONDS,
            "Mean time of a command in Redis, which serves one at a time.",
            (Line("{{command}}", per("tb_redis_command_seconds_total", "tb_redis_commands_total", by="command")),),
        ),
        Panel(
            "Cache hits",
            RATIO,
            "The share of reads that the cache answers. A drop with many misses at once is a stampede.",
            (
                Line(
                    "hits",
                    f"{rate('target_cache_total', HIT)} / {rate('target_cache_total', APP)}",
                ),
            ),
            most=1,
        ),
    ),
)
CPU: Final = Row(
    "CPU by component",
    (
        Panel(
            "CPU used",
            CORES,
            "Cores that each component keeps busy. Other is what the rest of the machine takes; ticketbench is what the"
            " measuring itself costs.",
            (Line("{{component}}", rate("tb_cpu_seconds_total", by="component")),),
            stacked=True,
        ),
        Panel(
            "Waiting for a core",
            NUMBER,
            "Threads that could run and get no core (run delay). Where k6 waits, latencies are its own and not the"
            " system's.",
            (Line("{{component}}", rate("tb_run_delay_seconds_total", by="component")),),
        ),
        Panel(
            "Held back by a CPU limit",
            RATIO,
            "The part of the time in which a component had work and its CPU limit did not let it run (throttling)."
            " Empty where no component has a limit.",
            (Line("{{component}}", rate("tb_cpu_throttled_seconds_total", by="component")),),
        ),
    ),
)
K6: Final = Row(
    "Load generator (k6)",
    (
        Panel(
            "Virtual users",
            NUMBER,
            "Virtual users that are on a journey, and those that k6 has made. When all are busy, arrivals are dropped.",
            (Line("busy", f"sum(k6_vus{{{OF_TRIAL}}})"), Line("made", f"sum(k6_vus_max{{{OF_TRIAL}}})")),
        ),
        Panel(
            "Journeys",
            PER_S,
            "Dropped iterations were scheduled and never began: the load was lower than what was offered.",
            (
                Line("finished", events("k6_iterations_total", OF_TRIAL)),
                Line(
                    "dropped",
                    f"{events('k6_dropped_iterations_total', OF_TRIAL)} or 0 * sum(k6_vus{{{OF_TRIAL}}})",
                ),
            ),
        ),
        Panel(
            "CPU of k6",
            CORES,
            "A k6 near one core, or one that waits for cores, measures itself.",
            (
                Line("used", rate("tb_cpu_seconds_total", 'component="k6"')),
                Line("waited for", rate("tb_run_delay_seconds_total", 'component="k6"')),
            ),
        ),
    ),
)

DASHBOARDS: Final = (
    Dashboard(
        "golden-signals",
        "ticketbench: golden signals",
        "Latency, traffic, errors and saturation of a trial. Where the time goes is on the other page.",
        (
            Row("", (LATENCY, TRAFFIC)),
            Row("", (ERRORS, ERROR_KINDS)),
            Row("", (UTILISATION, QUEUES)),
        ),
    ),
    Dashboard(
        "resources",
        "ticketbench: resources",
        "Where the time goes: connection pool, PostgreSQL, Redis, CPU, and the load generator itself.",
        (POOL, POSTGRES, REDIS, CPU, K6),
    ),
)

"""What k6 says of scripts: the bundled ones under several loads, and users' own, right and wrong."""

import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from ticketbench import scenario
from ticketbench.binaries import Binaries
from ticketbench.errors import UsageError
from ticketbench.model import Schedule

OPEN_LOAD = ("browse", "purchase", "spike", "validate")
NOTHING = "export default function () {}\n"


@pytest.fixture(scope="module")
def k6_command(binaries: Binaries) -> tuple[str, ...]:
    return (str(binaries.k6),)


def journeys(schedule: Schedule) -> float:
    return sum((s.end_s - s.start_s) * (s.from_per_s + s.to_per_s) / 2 for s in schedule.offered)


def script(folder: Path, text: str, name: str = "own.js") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def with_options(options: str) -> str:
    return f"export const options = {options};\n{NOTHING}"


# --- the bundled scenarios ---


def test_every_bundled_scenario_says_what_it_is(k6_command: tuple[str, ...]) -> None:
    shapes = {}
    for name in scenario.bundled():
        item, schedule = scenario.inspect(k6_command, scenario.find(name), {})
        shapes[name] = item.shape
        assert item.name == name
        assert item.script == f"{name}.js"
        assert item.title != item.script
        assert item.asks.endswith("?")
        assert item.look_at or name in ("smoke", "browse", "purchase", "spike")
        assert any(slo.metric.startswith("http_req_failed") for slo in item.slos)
        warnings = scenario.check(k6_command, scenario.find(name))
        assert schedule.open_model or item.shape == "functional" or len(warnings) == 1, "it is closed, on purpose"
        assert not warnings or not schedule.open_model
        assert schedule.max_vus >= 1
    assert shapes == {
        "smoke": "functional",
        "browse": "steady",
        "purchase": "steady",
        "validate": "steady",
        "spike": "transient",
        "journey": "steady",
        "soak": "steady",
        "visitors": "steady",
        "gate": "steady",
        "flash": "transient",
        "stampede": "transient",
    }


@pytest.mark.parametrize("name", OPEN_LOAD)
@pytest.mark.parametrize(("rate", "duration"), [("40", "20"), ("300", "8"), ("7.5", "61.5")])
def test_rate_and_duration_shape_the_offered_load(
    name: str, rate: str, duration: str, k6_command: tuple[str, ...]
) -> None:
    _, schedule = scenario.inspect(k6_command, scenario.find(name), {"RATE": rate, "DURATION": duration})
    assert schedule.open_model
    assert schedule.warmup_scenarios == ("warmup",)
    assert schedule.window_end_s - schedule.window_start_s == pytest.approx(float(duration))
    assert schedule.window_start_s == (7 if name == "spike" else 10)
    assert schedule.total_s == schedule.window_end_s
    assert schedule.offered[0].start_s == schedule.window_start_s
    assert schedule.offered[-1].end_s == pytest.approx(schedule.window_end_s)
    assert max(slope.to_per_s for slope in schedule.offered) == float(rate)
    assert all(a.end_s == pytest.approx(b.start_s) for a, b in pairwise(schedule.offered))
    if name != "spike":
        assert journeys(schedule) == pytest.approx(float(rate) * float(duration))


def test_the_default_spike_sells_out_shortly_before_its_peak_ends(k6_command: tuple[str, ...]) -> None:
    item, schedule = scenario.inspect(k6_command, scenario.find("spike"), {})
    peak_end_s = next(s.start_s for s in schedule.offered if s.to_per_s < s.from_per_s)
    until_peak_ends = sum(
        (s.end_s - s.start_s) * (s.from_per_s + s.to_per_s) / 2 for s in schedule.offered if s.end_s <= peak_end_s
    )
    stock = item.levels["stock"]
    assert isinstance(stock, int)
    # A pool of 2 with 20 ms payments and 2 to 4 ms of SQL makes 83 to 91 a second: it never gets there.
    assert sum((s.end_s - s.start_s) * min(91, max(s.from_per_s, s.to_per_s)) for s in schedule.offered) < stock
    assert 1 <= (until_peak_ends - stock) / 180 <= 3  # seconds at the peak's rate


def test_vus_bounds_the_window(k6_command: tuple[str, ...]) -> None:
    _, few = scenario.inspect(k6_command, scenario.find("spike"), {"VUS": "9"})
    assert few.max_vus == 9
    _, default = scenario.inspect(k6_command, scenario.find("spike"), {"RATE": "100"})
    assert default.max_vus == 700


def test_bad_load_parameters_are_all_named_at_once(k6_command: tuple[str, ...]) -> None:
    env = {"RATE": "fast", "DURATION": "0", "VUS": "2.5", "HOT_SHARE": "2", "BASE_URL": "shop"}
    with pytest.raises(UsageError) as raised:
        scenario.inspect(k6_command, scenario.find("spike"), env)
    for name, value in env.items():
        assert f"{name}={value}" in raised.value.message
    assert str(scenario.find("spike").parent) not in raised.value.message


def test_a_factor_that_a_scenario_ignores_is_found_out(k6_command: tuple[str, ...], tmp_path: Path) -> None:
    load = ("rate", "duration", "vus", "hot_share", "pool_size")
    assert scenario.unused(k6_command, scenario.find("spike"), load) == ()
    assert scenario.unused(k6_command, scenario.find("validate"), load) == ("hot_share",)
    assert scenario.unused(k6_command, scenario.find("smoke"), load) == ("rate", "duration", "vus", "hot_share")
    own = script(tmp_path, with_options("{ vus: Number(__ENV.VUS || 1), duration: '3s' }"))
    assert scenario.unused(k6_command, own, load) == ("rate", "duration", "hot_share")
    choosy = "if (__ENV.RATE && __ENV.RATE != 7) throw new Error('RATE must be 7');\n" + NOTHING
    assert scenario.unused(k6_command, script(tmp_path, choosy), ("rate",)) == ()


# --- users' own scripts ---


def test_a_bare_script_is_one_closed_transient(k6_command: tuple[str, ...], tmp_path: Path) -> None:
    own = script(tmp_path, NOTHING)
    item, schedule = scenario.inspect(k6_command, own, {})
    assert (item.name, item.title, item.asks, item.shape, item.goal) == ("own.js", "own.js", "", "transient", None)
    assert (item.slos, item.levels) == ((), {})
    assert (schedule.open_model, schedule.offered, schedule.window_start_s) == (False, (), 0)
    assert schedule.window_end_s == 600
    warnings = scenario.check(k6_command, own)
    assert [text for text in warnings if "no thresholds" in text]
    assert [text for text in warnings if "closed" in text]
    assert [text for text in warnings if "no metadata" in text]


@pytest.mark.parametrize(
    ("options", "end_s", "max_vus"),
    [
        ("{ vus: 3, duration: '1m2.5s' }", 62.5, 3),
        ("{ stages: [{ target: 4, duration: '2s' }, { target: 0, duration: '500ms' }] }", 2.5, 4),
        ("{ iterations: 4, vus: 2 }", 600, 2),
        ("{ iterations: 4 }", 600, 1),
        ("{ duration: '3s' }", 3, 1),
        ("{ scenarios: { a: { executor: 'per-vu-iterations', vus: 2, maxDuration: '9s', startTime: '1s' } } }", 10, 2),
    ],
)
def test_closed_models_have_a_longest_duration_and_no_offered_rate(
    options: str, end_s: float, max_vus: int, k6_command: tuple[str, ...], tmp_path: Path
) -> None:
    _, schedule = scenario.inspect(k6_command, script(tmp_path, with_options(options)), {})
    assert not schedule.open_model
    assert schedule.offered == ()
    assert schedule.window_end_s == schedule.total_s == end_s
    assert schedule.max_vus == max_vus


RAMPS = """{ scenarios: {
    first: { executor: 'constant-arrival-rate', rate: 120, timeUnit: '1m', duration: '4s', preAllocatedVUs: 1 },
    ramp: {
      executor: 'ramping-arrival-rate', startTime: '5s', startRate: 10, timeUnit: '2s', preAllocatedVUs: 1, maxVUs: 7,
      stages: [{ target: 30, duration: '2s' }, { target: 80, duration: '0s' }, { target: 80, duration: '3s' }],
    },
} }"""


def test_open_models_give_slopes_per_second(k6_command: tuple[str, ...], tmp_path: Path) -> None:
    _, schedule = scenario.inspect(k6_command, script(tmp_path, with_options(RAMPS)), {})
    assert [(s.start_s, s.end_s, s.from_per_s, s.to_per_s) for s in schedule.offered] == [
        (0, 4, 2, 2),
        (5, 7, 5, 15),
        (7, 10, 40, 40),
    ]
    assert schedule.open_model
    assert schedule.window_end_s == 10


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ("{ shpe: 'steady' }", "there is no key 'shpe': known are title, asks, shape"),
        ("{ shape: 'steedy' }", "shape = 'steedy' is unknown: known are functional, steady, transient"),
        ("{ warmup: ['before'] }", "warmup names 'before': the script's k6 scenarios are default"),
        ("{ warmup: 'default' }", "warmup = 'default' is not a list"),
        ("{ title: 3 }", "title = 3 is not text"),
        ("{ levels: { pool: 3 } }", "there is no factor 'pool': known are pool_size"),
        ("{ levels: { cache: 'maybe' } }", "cache='maybe' is not possible: cache takes on, off"),
        ("{ levels: { pool_size: 1.5 } }", "pool_size='1.5' is not possible"),
        ("{ levels: 3 }", "levels = 3 is not an object"),
        ("{ reads: ['HEAT'] }", "reads names 'HEAT': known are RATE"),
        ("'text'", "is not an object"),
    ],
)
def test_wrong_metadata_names_key_value_and_known_values(
    meta: str, said: str, k6_command: tuple[str, ...], tmp_path: Path
) -> None:
    own = script(tmp_path, with_options(f"{{ vus: 1, duration: '1s', ext: {{ ticketbench: {meta} }} }}"))
    with pytest.raises(UsageError) as raised:
        scenario.inspect(k6_command, own, {})
    assert said in raised.value.message
    assert raised.value.message.startswith("own.js: ")


def test_every_fault_of_the_metadata_is_named(k6_command: tuple[str, ...], tmp_path: Path) -> None:
    own = script(tmp_path, with_options("{ ext: { ticketbench: { shape: 'x', goal: 1, levels: { rate: 'y' } } } }"))
    with pytest.raises(UsageError) as raised:
        scenario.inspect(k6_command, own, {})
    assert len(raised.value.problems) == 3


def test_right_metadata_is_taken_over(k6_command: tuple[str, ...], tmp_path: Path) -> None:
    meta = "{ title: 'T', asks: 'A?', shape: 'steady', goal: 'buy', levels: { cache: false, payment_ms: 5 } }"
    own = script(tmp_path, with_options(f"{{ ext: {{ ticketbench: {meta} }}, thresholds: {{ checks: ['rate==1'] }} }}"))
    item, _ = scenario.inspect(k6_command, own, {})
    assert (item.title, item.asks, item.shape, item.goal) == ("T", "A?", "steady", "buy")
    assert item.levels == {"cache": "off", "payment_ms": 5.0}
    assert [(slo.metric, slo.expression) for slo in item.slos] == [("checks", "rate==1")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("export const options = { foo: ;", "Unexpected token ;"),
        ("import './gone.js';" + NOTHING, "gone.js"),
        ("throw new Error('no such shop');", "no such shop"),
        (with_options("{ scenarios: { a: { executor: 'constant-arrival-rate', ratee: 3 } } }"), "ratee"),
        (with_options("{ scenarios: { a: { executor: 'constant-arrival-rate', preAllocatedVUs: 1 } } }"), "rate"),
        (with_options("{ thresholds: { http_req_failed: ['rat<1'] } }"), "rat"),
        (with_options("{ thresholds: { nosuch: ['rate<1'] } }"), "nosuch"),
        (with_options("{ scenarios: { a: { executor: 'externally-controlled', vus: 1, duration: '3s' } } }"), "extern"),
        ("export const options = {};", "no exported functions"),
    ],
)
def test_what_k6_refuses_is_told_in_its_words_without_folders(
    text: str, said: str, k6_command: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as raised:
        scenario.inspect(k6_command, script(tmp_path, text), {})
    assert said in raised.value.message
    assert "own.js" in raised.value.message
    assert str(tmp_path) not in raised.value.message
    assert "\n" not in raised.value.message


def test_a_window_of_warmups_only_is_refused(k6_command: tuple[str, ...], tmp_path: Path) -> None:
    own = script(tmp_path, with_options("{ ext: { ticketbench: { warmup: ['default'] } }, vus: 1, duration: '1s' }"))
    with pytest.raises(UsageError, match="nothing to measure"):
        scenario.inspect(k6_command, own, {})


def test_the_hash_covers_what_a_script_imports_and_not_where_it_lies(
    k6_command: tuple[str, ...], tmp_path: Path
) -> None:
    home = scenario.find("spike").parent
    first, second = (shutil.copytree(home, tmp_path / name) for name in ("first", "second"))
    original, _ = scenario.inspect(k6_command, scenario.find("spike"), {})
    copied, _ = scenario.inspect(k6_command, first / "spike.js", {"RATE": "10"})
    assert copied.sha256 == original.sha256
    with (second / "lib" / "journeys.js").open("a") as library:
        library.write("// changed\n")
    changed, _ = scenario.inspect(k6_command, second / "spike.js", {})
    assert changed.sha256 != original.sha256
    (first / "smoke.js").unlink()  # it is not imported
    assert scenario.inspect(k6_command, first / "spike.js", {})[0].sha256 == original.sha256


def test_the_script_sees_no_environment_but_what_it_is_told(
    k6_command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_OURS", "x")
    own = script(tmp_path, "if (__ENV.SECRET_OF_OURS) throw new Error('leaked');\n" + NOTHING)
    scenario.inspect(k6_command, own, {})


def test_check_names_what_weakens_a_script(k6_command: tuple[str, ...], tmp_path: Path) -> None:
    options = """{
      scenarios: { main: { executor: 'constant-arrival-rate', rate: 1, duration: '5s', preAllocatedVUs: 1 } },
      thresholds: { http_req_duration: [{ threshold: 'p(95)<5', abortOnFail: true }] },
      ext: { ticketbench: { shape: 'steady' } },
    }"""
    warnings = scenario.check(k6_command, script(tmp_path, with_options(options)))
    for part in ("http_req_failed", "dropped_iterations", "no warm-up", "shorter than 20 s", "abortOnFail"):
        assert len([text for text in warnings if part in text]) == 1, part
    assert len(warnings) == 5


def test_whether_k6_checks_certificates_is_known(k6_command: tuple[str, ...], tmp_path: Path) -> None:
    for options, unchecked in (("{ insecureSkipTLSVerify: true }", True), ("{}", False)):
        item, _ = scenario.inspect(k6_command, script(tmp_path, with_options(options)), {})
        assert item.any_certificate is unchecked

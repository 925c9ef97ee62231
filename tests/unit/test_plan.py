from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketbench import factors, plan
from ticketbench.errors import UsageError
from ticketbench.levels import parse_fixed, parse_varied
from ticketbench.model import Level, OfferedSlope, Scenario, Schedule
from ticketbench.plan_file import find_plan, read_plan_file

SCENARIO = Scenario(
    name="rush",
    script="rush.js",
    sha256="0" * 64,
    title="A rush",
    asks="What breaks?",
    shape="transient",
    goal="purchase",
    slos=(),
    levels={"payment": "in_transaction", "stock": 700},
)


def inspect(env: Mapping[str, str]) -> tuple[Scenario, Schedule]:
    rate = float(env.get("RATE", "50"))
    slope = OfferedSlope(start_s=5, end_s=35, from_per_s=rate, to_per_s=rate)
    return SCENARIO, Schedule(
        window_start_s=5, window_end_s=35, total_s=35, offered=(slope,), open_model=True, max_vus=100
    )


def load_env(levels: Mapping[str, Level]) -> dict[str, str]:
    return {"RATE": str(levels["rate"])} if "rate" in levels else {}


def build(**changes: object) -> plan.Plan:
    return plan.build(plan.Request(scenario="rush", **changes), inspect, load_env)  # type: ignore[arg-type]


def test_variants_are_every_combination_in_the_order_given_and_the_first_is_the_reference() -> None:
    built = build(varied={"pool_size": (10, 2), "cache": ("on", "off")})
    assert [variant.name for variant in built.variants] == [
        "pool_size=10,cache=on",
        "pool_size=10,cache=off",
        "pool_size=2,cache=on",
        "pool_size=2,cache=off",
    ]
    assert built.reference == "pool_size=10,cache=on"


def test_levels_are_the_defaults_then_the_scenarios_then_the_set_then_the_varied() -> None:
    built = build(fixed={"stock": 5, "workers": 2}, varied={"pool_size": (3,)})
    levels = built.variants[0].levels
    assert levels["locking"] == factors.CATALOGUE["locking"].default
    assert levels["payment"] == "in_transaction"
    assert levels["stock"] == 5
    assert levels["workers"] == 2
    assert levels["pool_size"] == 3


def test_a_varied_load_factor_gives_each_variant_its_own_schedule() -> None:
    built = build(varied={"rate": (10.0, 20.0)})
    assert {name: schedule.offered[0].to_per_s for name, schedule in built.schedules.items()} == {
        "rate=10": 10.0,
        "rate=20": 20.0,
    }


@given(seed=st.integers(0, 1000), repetitions=st.integers(1, 8))
def test_every_block_holds_every_variant_once(seed: int, repetitions: int) -> None:
    built = build(varied={"pool_size": (1, 2, 3)}, repetitions=repetitions, seed=seed)
    names = {variant.name for variant in built.variants}
    for block in range(repetitions):
        trials = built.trials[block * 3 : block * 3 + 3]
        assert {trial.variant for trial in trials} == names
        assert {trial.repetition for trial in trials} == {block + 1}
    assert [trial.position for trial in built.trials] == list(range(1, 3 * repetitions + 1))
    assert len({trial.id for trial in built.trials}) == len(built.trials)
    assert built.trials == build(varied={"pool_size": (1, 2, 3)}, repetitions=repetitions, seed=seed).trials


def test_the_order_depends_on_the_seed_and_no_variant_keeps_its_place() -> None:
    first = Counter(build(varied={"pool_size": (1, 2, 3)}, seed=seed).trials[0].variant for seed in range(60))
    assert len(first) == 3
    assert min(first.values()) >= 8  # 20 expected of each; fewer than 8 has a chance of about 1 in 3000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["pool_size"], "--vary 'pool_size' is not of the form"),
        (["pool_size="], "is not of the form"),
        (["poolsize=2"], "there is no factor 'poolsize': known are pool_size"),
        (["pool_size=2,x"], "pool_size='x' is not possible: pool_size takes a whole number from 1 to 200"),
        (["pool_size=0"], "from 1 to 200"),
        (["pool_size=2.5"], "a whole number"),
        (["pool_size=2,,3"], "pool_size='' is not possible"),
        (["pool_size=2,2"], "names a level twice"),
        (["payment_ms=nan"], "from 0 to 10000"),
        (["payment_ms=inf"], "from 0 to 10000"),
        (["cache=maybe"], "cache takes on, off"),
        (["locking=optimist"], "none, pessimistic, optimistic, atomic, redis"),
        (["cache=on", "cache=off"], "names factor 'cache' twice"),
    ],
)
def test_a_bad_level_is_named_with_what_is_known(options: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=r"^--vary") as caught:
        parse_varied(options)
    assert message in caught.value.message


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        parse_fixed(["nope=1", "cache=2", "pool_size"])
    assert len(caught.value.problems) == 3


def test_a_factor_is_either_varied_or_set() -> None:
    with pytest.raises(UsageError, match="both varied and set"):
        build(varied={"cache": ("on",)}, fixed={"cache": "off"})


def test_more_connections_than_the_database_has_are_refused() -> None:
    with pytest.raises(UsageError, match="wants 400 connections"):
        build(varied={"pool_size": (200,)}, fixed={"workers": 2})


def test_who_says_how_many_connections_there_are_may_want_more() -> None:
    with pytest.raises(
        UsageError, match=r"wants 320 connections \(\(pool_size \+ max_overflow\) x workers x replicas\)"
    ):
        build(fixed={"workers": 4, "replicas": 4, "pool_size": 20})
    build(fixed={"workers": 4, "replicas": 4, "pool_size": 20, "db_max_connections": 100})
    build(fixed={"workers": 4, "replicas": 4, "pool_size": 20, "pooler": "pgbouncer"})


def test_a_plan_of_a_thousand_trials_is_refused() -> None:
    with pytest.raises(UsageError, match="more than 1000"):
        build(varied={"pool_size": tuple(range(1, 51)), "cache_ttl_s": (1.0, 2.0, 3.0)}, repetitions=10)


def test_the_expected_time_counts_every_trial() -> None:
    built = build(varied={"pool_size": (1, 2)}, repetitions=3)
    planned = plan.planned(built)
    each_s = 35 + plan.OVERHEAD_PER_TRIAL_S
    assert [trial.expected_s for trial in planned.trials] == [plan.START_S + each_s, *[each_s] * 5]
    assert planned.expected_s == pytest.approx(plan.START_S + 6 * each_s + plan.CONCLUDE_S)
    assert [trial.variant for trial in planned.trials] == [trial.variant for trial in built.trials]
    assert not planned.at_most


def test_the_trials_that_are_left_count_and_no_others() -> None:
    built = build(varied={"pool_size": (1, 2)}, repetitions=3)
    planned = plan.planned(built, built.trials[4:])
    assert [trial.position for trial in planned.trials] == [5, 6]
    assert planned.expected_s == pytest.approx(plan.START_S + 2 * (35 + plan.OVERHEAD_PER_TRIAL_S) + plan.CONCLUDE_S)
    assert plan.planned(built, ()).expected_s == 0


def test_the_command_repeats_the_plan() -> None:
    built = build(varied={"pool_size": (2, 10)}, fixed={"payment_ms": 12.5}, repetitions=2, seed=9)
    words = plan.command(built).split()
    assert words[:3] == ["ticketbench", "run", "rush"]
    again = plan.Request(
        scenario="rush",
        varied=parse_varied([words[words.index("--vary") + 1]]),
        fixed=parse_fixed([words[words.index("--set") + 1]]),
        repetitions=int(words[words.index("--trials") + 1]),
        seed=int(words[words.index("--seed") + 1]),
    )
    assert plan.build(again, inspect, load_env) == built


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("load/own.js", "load/own.js"),
        ("./own.js", "own.js"),
        ("/home/someone/own.js", "path/to/own.js"),
        ("../own.js", "path/to/own.js"),
        ("~/own.js", "path/to/own.js"),
        (None, "path/to/own.js"),
    ],
)
def test_the_command_names_a_script_of_the_users_without_a_folder_of_the_machine(given: str | None, told: str) -> None:
    own = SCENARIO.model_copy(update={"name": "own.js", "script": "own.js"})
    built = build().model_copy(update={"scenario": own})
    assert plan.command(built, given).split()[2] == told


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "p.toml"
    path.write_text(text)
    return path


def test_a_plan_file_says_what_flags_can_say(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'scenario = "mine.js"\ntrials = 3\nseed = 0\n[vary]\npool_size = [2, 10]\ncache = [true, false]\n'
        "[set]\npayment_ms = 20\n",
    )
    read, problems = read_plan_file(path)
    assert problems == ()
    assert read.scenario == str(tmp_path / "mine.js")
    assert read.varied == {"pool_size": (2, 10), "cache": ("on", "off")}
    assert read.fixed == {"payment_ms": 20.0}
    assert (read.repetitions, read.seed, read.stack) == (3, 0, None)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("trial = 3", ["there is no key 'trial': known are scenario, trials"]),
        ("trials = 0\nseed = 'x'", ["trials = 0 is not possible", "seed = 'x' is not a whole number"]),
        ("trials = true", ["trials = True is not a whole number"]),
        ("vary = 3", ["vary = 3 is not a table"]),
        ("[vary]\npool_size = 3", ["vary.pool_size = 3 is not a list"]),
        ("[vary]\npool_size = []", ["is not a list of levels"]),
        ("[vary]\npool_size = [[1]]", ["holds [1], which is no level"]),
        ("[set]\nnope = 1", ["set.nope: there is no factor 'nope'"]),
        ("[set]\ncache = 'hot'", ["cache takes on, off"]),
    ],
)
def test_a_bad_plan_file_names_key_and_value(tmp_path: Path, text: str, messages: list[str]) -> None:
    _, problems = read_plan_file(write(tmp_path, text))
    assert len(problems) == len(messages)
    for message, problem in zip(messages, problems, strict=True):
        assert problem.startswith("plan p.toml: ")
        assert message in problem


@pytest.mark.parametrize("text", ["scenario = ", f"seed = {'9' * 5000}", f"x = {'[' * 5000}{']' * 5000}"])
def test_what_is_no_toml_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="is not TOML"):
        read_plan_file(write(tmp_path, text))


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    file, problems = read_plan_file(write(tmp_path, "\ufeffscenario = 'spike'"))
    assert (file.scenario, problems) == ("spike", ())


def test_an_unknown_plan_lists_the_bundled_ones() -> None:
    with pytest.raises(UsageError, match="neither a file nor a bundled plan"):
        find_plan("nope")
    for nothing in ("", " "):
        with pytest.raises(UsageError, match=r"names no plan: .*durability, lockings, planned-faults, pool-and-cache"):
            find_plan(nothing)


def test_a_title_is_one_line_and_goes_into_the_plan(tmp_path: Path) -> None:
    read, problems = read_plan_file(write(tmp_path, 'title = """\n  my  own\n  shop """'))
    assert (read.title, problems) == ("my own shop", ())
    assert build(title=read.title).title == "my own shop"
    assert (read_plan_file(write(tmp_path, "seed = 1"))[0].title, build().title) == ("", "")
    assert read_plan_file(write(tmp_path, "title = 3"))[1] == ("plan p.toml: title = 3 is not text",)

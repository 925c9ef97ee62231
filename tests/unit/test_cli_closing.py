"""The next useful command, by what happened."""

from pathlib import Path

import pytest

from tests.unit import report_data
from tests.unit.synthetic import run_record, schedule, spike
from ticketbench.analysis.analyse import analyse
from ticketbench.cli.closing import Ended, earlier_run, next_steps
from ticketbench.cli.remedies import foreseen
from ticketbench.cli.run import Undertaking, _announcement
from ticketbench.conclusions import Analysis, Errors, Outcome, Route, TrialAnalysis, Validity
from ticketbench.errors import EnvironmentFailure, ScriptFailure
from ticketbench.model import ExternalSystem, Plan
from ticketbench.store import RunDirectory, save_run

DATA = report_data.spike()
RUN = Path("reports/20261122T120000Z-spike")


def steps(status: str = "pass", repetitions: int = 1, variants: int = 4, **changes: object) -> tuple[str, ...]:
    plan = DATA.run.plan
    plan = plan.model_copy(update={"repetitions": repetitions, "variants": plan.variants[:variants]})
    outcome = Outcome(status=status, sentence="")  # type: ignore[arg-type]
    fields: dict[str, object] = {
        "plan": plan, "analysis": DATA.analysis.model_copy(update={"outcome": outcome}), "run": RUN, "script": None,
        "again": ("run", "--plan", "my own.toml"), "system": (), "unfinished": False, "failure": None, "kept": False,
        "earlier": None,
    }  # fmt: skip
    return next_steps(Ended(**{**fields, **changes}))  # type: ignore[arg-type]


def test_an_interrupted_run_is_finished_first() -> None:
    (told,) = steps("invalid", unfinished=True, failure=EnvironmentFailure("redis died"))
    assert told.startswith(f"ticketbench run --resume {RUN}  (")
    (told,) = steps("invalid", unfinished=True, failure=EnvironmentFailure("redis died"), script="my load/own.js")
    assert told.startswith(f"ticketbench run 'my load/own.js' --resume {RUN}  (")


def test_the_value_of_a_header_is_asked_for_where_it_has_to_be_put_in() -> None:
    system = ("--target", "http://127.0.0.1:8000", "--header", "X-A: <value>", "--header", "X-B: <value>")
    (told,) = steps("invalid", unfinished=True, system=system)
    assert told.endswith(
        f"--resume {RUN} --target http://127.0.0.1:8000 --header 'X-A: <value>' --header 'X-B: <value>'"
        "  (finishes the run, and keeps what is done; put in the value of X-A, X-B)"
    )
    assert "put in" not in steps("invalid", unfinished=True, system=system[:2])[0]


def test_a_violation_leads_to_the_audit_also_where_the_run_was_interrupted() -> None:
    assert steps("integrity_violated")[0].startswith(f"ticketbench audit {RUN}  (")
    told = steps("integrity_violated", unfinished=True)
    assert [step.split()[1] for step in told] == ["run", "audit"]


def test_what_cannot_be_believed_is_not_compared() -> None:
    told = steps("invalid", failure=EnvironmentFailure("redis died"))
    assert f"{RUN}/trials" in told[0]
    assert told[1].startswith("ticketbench doctor")
    assert len(told) == 2
    assert not any("compare" in step for step in steps("invalid", earlier=Path("reports/x")))


def invalid(
    routes: tuple[Route, ...], kinds: dict[str, int], *, external: bool = False, thrown: float = 0.0, **plan: object
) -> str:
    """Return the first step after a run whose reference trial answered so."""
    (first,) = [trial for trial in DATA.analysis.trials if trial.variant == DATA.run.plan.reference][:1]
    total = sum(route.requests for route in routes) or 1
    trial: TrialAnalysis = first.model_copy(
        update={
            "routes": routes,
            "thrown_ratio": thrown,
            "validity": Validity(status="invalid", reasons=("?",)),
            "signals": first.signals.model_copy(
                update={"errors": Errors(ratio=sum(kinds.values()) / total, by_kind=kinds)}
            ),
        }
    )
    outcome = Outcome(status="invalid", sentence="")
    system = ExternalSystem(scheme="http", where="loopback", port=8000, path="") if external else None
    told = steps(
        "invalid",
        analysis=DATA.analysis.model_copy(update={"outcome": outcome, "trials": (trial,)}),
        plan=DATA.run.plan.model_copy(update={"external": system, **plan}),
        again=("run", "own.js", "--set", "duration=5", "--set", "rate=10"),
    )
    return told[0]


def route(name: str, **by_status: int) -> Route:
    counts = {status.removeprefix("s"): count for status, count in by_status.items()}
    return Route(
        name=name, requests=sum(counts.values()), failed=0, by_status=counts, latency_s=report_data.NOTHING,
        failed_latency_s=report_data.NOTHING,
    )  # fmt: skip


GOOD = route("POST purchase", s201=1000)


def test_the_machine_is_suspected_only_where_nothing_else_is_at_fault() -> None:
    assert invalid((GOOD,), {}).startswith("ticketbench doctor")
    assert "correct the address of GET /x in spike.js" in invalid((GOOD, route("GET /x", s404=50)), {"404": 50})
    group = invalid((GOOD, route("GET (other)", s404=50)), {"404": 50})
    assert group.startswith("give the requests in spike.js whose address varies a name tag")


def test_a_script_that_threw_is_to_be_corrected_unless_its_answers_are_why() -> None:
    assert invalid((GOOD,), {}, thrown=1.0).startswith("correct spike.js: where it threw is in ")
    assert invalid((GOOD,), {}, thrown=0.04).startswith("ticketbench doctor")
    assert "start the system" in invalid((GOOD,), {"connection refused": 900}, thrown=1.0, external=True)


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("connection refused", "start the system"),
        ("certificate not trusted", "insecureSkipTLSVerify: true in the script's options"),
        ("blocked address", "the target's own host"),
        ("401", "give --header"),
        ("500", "in the report which requests failed with 500, and in its own log why"),
    ],
)
def test_what_most_requests_failed_with_says_what_to_do(kind: str, advice: str) -> None:
    status = {"s" + (kind if kind.isdigit() else "0"): 900}
    assert advice in invalid((route("POST purchase", s201=10, **status),), {kind: 900}, external=True)


def test_our_own_stack_cannot_be_started_by_hand_and_has_logs() -> None:
    told = invalid((route("POST purchase", s0=900),), {"connection refused": 900})
    assert (
        told
        == f"look in the report which requests failed with connection refused, and in the logs below {RUN}/trials why"
    )


def test_what_was_too_short_is_measured_for_long_enough() -> None:
    plan = DATA.run.plan
    steady = plan.scenario.model_copy(update={"shape": "steady"})
    usual = plan.schedules[plan.reference]
    short = {plan.reference: usual.model_copy(update={"window_end_s": usual.window_start_s + 5})}
    told = invalid((GOOD,), {}, scenario=steady, schedules=short, fixed={"duration": 5, "rate": 10})
    assert told == "ticketbench run own.js --set rate=10 --set duration=20  (measures for long enough)"
    # 30 requests of a spike of 5 s: four times as many, and only what the plan says that the script uses
    few = (route("POST purchase", s201=30),)
    told = invalid(few, {}, fixed={"duration": 5, "rate": 10})
    assert told == "ticketbench run own.js --set rate=10 --set duration=20  (measures for long enough)"
    told = invalid(few, {}, fixed={"rate": 10})
    assert told == "ticketbench run own.js --set duration=5 --set rate=40  (measures for long enough)"
    assert invalid(few, {}, fixed={}) == "let spike.js offer more: a longer window, or a higher rate"


def test_a_script_that_ended_the_load_is_to_be_corrected() -> None:
    told = steps("invalid", failure=ScriptFailure("it threw"))
    assert told == (f"correct spike.js: what k6 said of it is in {RUN}/trials, in each trial's logs/",)


def test_variants_are_compared_and_one_trial_is_repeated() -> None:
    told = steps()
    other = DATA.run.plan.variants[1].name
    assert told[0].startswith(f"ticketbench compare {RUN} {RUN} --candidate-variant {other}  (")
    assert told[1].startswith("ticketbench run --plan 'my own.toml' --trials 5  (")
    assert len(steps(repetitions=5)) == 1


def test_a_single_variant_is_compared_with_the_run_before() -> None:
    assert steps(variants=1, repetitions=5) == ()
    (told,) = steps(variants=1, repetitions=5, earlier=Path("reports/20261121T000000Z-spike"))
    assert told.startswith(f"ticketbench compare reports/20261121T000000Z-spike {RUN}  (")


def test_a_kept_stack_is_always_named() -> None:
    for status in ("pass", "slo_missed", "invalid", "integrity_violated"):
        assert "ticketbench down" in steps(status, kept=True)[-1]


def stored(folder: Path, name: str, status: str = "pass", **system: object) -> tuple[RunDirectory, Analysis]:
    """Store a judged run of somebody else's system."""
    directory = RunDirectory(folder / name)
    directory.path.mkdir()
    run = run_record(run_id=name, stack="external")
    where = ExternalSystem.model_validate({"scheme": "http", "where": "loopback", "port": 8000, "path": "", **system})
    run = run.model_copy(update={"plan": run.plan.model_copy(update={"external": where})})
    save_run(directory, run)
    analysis = analyse(run, [spike().build()])
    analysis = analysis.model_copy(update={"outcome": Outcome(status=status, sentence="")})  # type: ignore[arg-type]
    directory.save_analysis(analysis)
    return directory, analysis


def test_the_run_before_is_the_last_one_that_can_be_compared_with(tmp_path: Path) -> None:
    stored(tmp_path, "20261101T000000Z-spike")
    stored(tmp_path, "20261102T000000Z-spike", "slo_missed")
    stored(tmp_path, "20261103T000000Z-smoke")
    stored(tmp_path, "20261103T000001Z-spike", "invalid")
    stored(tmp_path, "20261103T000002Z-spike", port=8443, scheme="https")
    stored(tmp_path, "20261103T000003Z-spike", path="/other")
    (tmp_path / "20261103T000004Z-spike").mkdir()  # came to nothing
    stored(tmp_path, "20261109T000000Z-spike")
    assert earlier_run(*stored(tmp_path, "20261105T000000Z-spike")) == tmp_path / "20261102T000000Z-spike"
    assert earlier_run(*stored(tmp_path, "20261031T000000Z-spike")) is None


# --- before the load ---


def planned(shape: str, seconds: float, per_s: float, **changes: object) -> Plan:
    made = run_record(("rate=1", "rate=2"), load=schedule(seconds=seconds, per_s=per_s, **changes)).plan  # type: ignore[arg-type]
    return made.model_copy(update={"scenario": made.scenario.model_copy(update={"shape": shape})})


def one_variant(plan: Plan) -> Plan:
    return plan.model_copy(update={"variants": plan.variants[:1]})


def test_what_cannot_be_believed_is_known_from_the_plan() -> None:
    assert foreseen(planned("steady", 20, 10)) == ()
    assert foreseen(one_variant(planned("steady", 5, 100))) == (
        "the window is 5 s: too short for a steady scenario, which needs 20 s, so the run will be invalid",
    )
    assert foreseen(one_variant(planned("transient", 3, 10))) == (
        "the window offers 30 journeys: a p95 needs 100 requests towards the goal, so the run will be invalid unless"
        " each journey sends several",
    )
    short, few = foreseen(planned("steady", 5, 10))
    assert short.startswith("the window of rate=1 is 5 s, the window of rate=2 is 5 s: too short")
    assert few.startswith("the window of rate=1 offers 50 journeys, the window of rate=2 offers 50 journeys: a p95")


def test_nothing_is_foreseen_of_what_makes_no_claim_or_is_not_known() -> None:
    assert foreseen(planned("functional", 1, 1)) == ()
    assert foreseen(planned("transient", 3, 10, open_model=False)) == ()


def test_the_announcement_warns_of_it(tmp_path: Path) -> None:
    undertaking = Undertaking(one_variant(planned("steady", 5, 100)), Path("spike.js"), RunDirectory(tmp_path))
    assert "\nwarning: the window is 5 s: too short" in _announcement(undertaking)

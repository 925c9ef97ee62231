"""The next useful command, by what happened."""

from pathlib import Path

from tests.unit import report_data
from ticketbench.cli.closing import Ended, earlier_run, next_steps
from ticketbench.conclusions import Outcome

DATA = report_data.spike()
RUN = Path("reports/20261122T120000Z-spike")


def steps(status: str = "pass", repetitions: int = 1, variants: int = 4, **changes: object) -> tuple[str, ...]:
    plan = DATA.run.plan
    plan = plan.model_copy(update={"repetitions": repetitions, "variants": plan.variants[:variants]})
    outcome = Outcome(status=status, sentence="")  # type: ignore[arg-type]
    fields: dict[str, object] = {
        "plan": plan, "analysis": DATA.analysis.model_copy(update={"outcome": outcome}), "run": RUN, "script": None,
        "again": ("run", "--plan", "my own.toml"), "system": (), "unfinished": False, "failed": False, "kept": False,
        "earlier": None,
    }  # fmt: skip
    return next_steps(Ended(**{**fields, **changes}))  # type: ignore[arg-type]


def test_an_interrupted_run_is_finished_first() -> None:
    (told,) = steps("invalid", unfinished=True, failed=True)
    assert told.startswith(f"ticketbench run --resume {RUN}  (")
    (told,) = steps("invalid", unfinished=True, failed=True, script="my load/own.js")
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
    told = steps("invalid", failed=True)
    assert f"{RUN}/trials" in told[0]
    assert told[1].startswith("ticketbench doctor")
    assert len(told) == 2
    assert not any("compare" in step for step in steps("invalid", earlier=Path("reports/x")))


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


def test_the_run_before_is_the_last_one_of_the_same_scenario(tmp_path: Path) -> None:
    for name in (
        "20261101T000000Z-spike",
        "20261102T000000Z-spike",
        "20261103T000000Z-smoke",
        "20261109T000000Z-spike",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    (tmp_path / "20261103T000000Z-spike").mkdir()  # came to nothing
    assert earlier_run(tmp_path / "20261105T000000Z-spike") == tmp_path / "20261102T000000Z-spike"
    assert earlier_run(tmp_path / "20261101T000000Z-spike") is None

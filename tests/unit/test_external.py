"""Somebody else's system without one: its options, and what is recorded of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from ticketbench import plan as planning
from ticketbench.cli.external import ExternalOptions, refuse_elsewhere, require_same, system_of, words_again
from ticketbench.errors import UsageError
from ticketbench.logs import blot_out
from ticketbench.model import ExternalSystem
from ticketbench.plan_file import PlanFile, read_plan_file

NO_FILE = PlanFile(None, {}, {}, None, None, None)
TARGET = "http://127.0.0.1:8000/shop"


@pytest.fixture(autouse=True)
def _no_headers_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TICKETBENCH_HEADERS", raising=False)


def plan_file(tmp_path: Path, text: str) -> PlanFile:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    file, problems = read_plan_file(path)
    if problems:
        raise UsageError(*problems)
    return file


def test_a_flag_wins_over_the_environment_and_that_over_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = plan_file(tmp_path, f'target = "{TARGET}"\n[headers]\nA = "plan"\nB = "plan"\nC = "plan"\n')
    monkeypatch.setenv("TICKETBENCH_HEADERS", "b: environment\n\nC: environment: with a colon\n")
    problems: list[str] = []
    system = system_of(ExternalOptions(headers=("c: flag",)), file, problems)
    assert problems == []
    assert system is not None
    assert system.target.url == TARGET
    assert dict(system.headers) == {"A": "plan", "b": "environment", "c": "flag"}


def test_a_fault_is_told_by_the_name_that_it_was_given_under(tmp_path: Path) -> None:
    file = plan_file(tmp_path, 'target = "shop"\n')
    problems: list[str] = []
    options = ExternalOptions(prometheus="9090", selector="x", from_variables=frozenset({"prometheus"}))
    assert system_of(options, file, problems) is None
    assert [problem.split(" '")[0] for problem in problems] == [
        "plan: target",
        "TICKETBENCH_PROMETHEUS",
        "--prometheus-selector",
    ]


def test_a_variable_for_all_runs_contradicts_no_other_stack() -> None:
    problems: list[str] = []
    options = ExternalOptions(target=TARGET, prometheus=TARGET, from_variables=frozenset({"target"}))
    refuse_elsewhere(options, NO_FILE, "local", problems)
    assert problems == ["--prometheus belongs to --stack external (the stack is local)"]


def test_a_header_of_the_plan_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[headers]\nAuthorization = { env = "SHOP_TOKEN" }\n'
    monkeypatch.setenv("SHOP_TOKEN", "Bearer abcdefgh")
    assert plan_file(tmp_path, text).headers == {"Authorization": "Bearer abcdefgh"}
    monkeypatch.delenv("SHOP_TOKEN")
    with pytest.raises(UsageError, match=r"headers\.Authorization takes the variable SHOP_TOKEN, which is not set"):
        plan_file(tmp_path, text)


def test_faults_of_a_plan_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        plan_file(tmp_path, 'target = 8000\nprometheus = true\nheaders = { A = 1 }\ntargets = "x"\n')
    told = "\n".join(caught.value.problems)
    for text in ("target = 8000 is not text", "prometheus = True is not text", "headers.A is neither", "'targets'"):
        assert text in told


def test_a_mapping_lies_beside_its_plan_and_a_bundled_one_does_not(tmp_path: Path) -> None:
    assert plan_file(tmp_path, 'prometheus_mapping = "own.toml"').prometheus_mapping == str(tmp_path / "own.toml")
    assert plan_file(tmp_path, 'prometheus_mapping = "bundled"').prometheus_mapping == "bundled"


@pytest.mark.parametrize("header", ["X-A:", "X-A: a\nX-B: b", ": value", "X A: b", "X-Ä: b"])
def test_what_is_no_header_is_refused(header: str) -> None:
    problems: list[str] = []
    assert system_of(ExternalOptions(target=TARGET, headers=(header,)), NO_FILE, problems) is None
    assert len(problems) == 1


@pytest.mark.parametrize("where", ["--header", "TICKETBENCH_HEADERS", "plan: headers"])
def test_a_value_that_is_not_ascii_is_refused_by_the_name_it_was_given_under(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = plan_file(tmp_path, '[headers]\nX-A = "geheim-ü"\n') if where.startswith("plan") else NO_FILE
    if where == "TICKETBENCH_HEADERS":
        monkeypatch.setenv(where, "X-A: geheim-ü")
    given = ("X-A: geheim-ü",) if where == "--header" else ()
    problems: list[str] = []
    assert system_of(ExternalOptions(target=TARGET, headers=given), file, problems) is None
    assert problems == [f"{where}: the value of X-A is not ASCII, and a header can hold nothing else"]


@pytest.mark.parametrize("value", ["...", "<value>"])
def test_what_stands_for_a_value_is_refused_as_one(value: str) -> None:
    problems: list[str] = []
    assert system_of(ExternalOptions(target=TARGET, headers=(f"X-A: {value}",)), NO_FILE, problems) is None
    assert problems == [f"--header: {value} stands for the value of X-A, which ticketbench does not keep: put it in"]


def test_a_header_stands_once_in_each_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETBENCH_HEADERS", "X-B: 1\nX-B: 2")
    problems: list[str] = []
    file = plan_file(tmp_path, '[headers]\nX-C = "1"\nx-c = "2"\n')
    assert system_of(ExternalOptions(target=TARGET, headers=("X-A: 1", "x-a: 2")), file, problems) is None
    assert problems == [
        "plan: headers: X-C is given twice (as X-C and x-c: case does not count): give it once",
        "TICKETBENCH_HEADERS: X-B is given twice: give it once",
        "--header: X-A is given twice (as X-A and x-a: case does not count): give it once",
    ]


def test_lines_of_a_variable_and_flags_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETBENCH_HEADERS", "A: 1\nB: 2\nthird")
    problems: list[str] = []
    assert system_of(ExternalOptions(target=TARGET, headers=("first",)), NO_FILE, problems) is None
    assert [problem.partition(" is not")[0] for problem in problems] == [
        "TICKETBENCH_HEADERS (number 3)",
        "--header (number 1)",
    ]


def test_the_options_that_name_the_system_again_leave_out_what_variables_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKETBENCH_HEADERS", "x-secret: 1\nX-Tenant: 2")
    file = plan_file(tmp_path, f'target = "{TARGET}"\n[headers]\nX-Secret = "p"\nX-Plan = "p"\n')
    options = ExternalOptions(
        prometheus="http://localhost:9090",
        selector='job="shop"',
        headers=("X-Tenant: 7",),
        from_variables=frozenset({"prometheus"}),
    )
    words = words_again(options, file)
    assert words == (
        "--target", TARGET, "--prometheus-selector", 'job="shop"', "--header", "X-Plan: <value>",
        "--header", "X-Tenant: <value>",
    )  # fmt: skip
    problems: list[str] = []
    system = system_of(options, file, problems)
    assert system is not None, problems
    record = system.record()
    assert record.headers_from_variable == ("x-secret",)  # the flag's X-Tenant wins over the variable's
    assert [word for word in planning.external_words(record) if word.startswith("X-")] == [
        "X-Plan: <value>",
        "X-Tenant: <value>",
    ]
    # given as flags, in another order and case, it is the same system
    flags = replace(options, headers=("x-plan: p", "X-TENANT: 7"))
    again = system_of(flags, replace(NO_FILE, target=TARGET), problems)
    assert again is not None, problems
    require_same(again, record)


def test_a_variable_is_named_where_its_value_is_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    every = frozenset({"target", "prometheus", "mapping", "selector"})
    problems: list[str] = []
    options = ExternalOptions(
        target="http://192.0.2.1", prometheus="http://0.0.0.0:9090", mapping="nope", selector="x", from_variables=every
    )
    assert system_of(options, NO_FILE, problems) is None
    assert sorted(problem.partition(" '")[0] for problem in problems) == [
        "TICKETBENCH_PROMETHEUS",
        "TICKETBENCH_PROMETHEUS_MAPPING",
        "TICKETBENCH_PROMETHEUS_SELECTOR",
        "TICKETBENCH_TARGET",
    ]
    problems.clear()
    options = ExternalOptions(
        target=TARGET, prometheus=TARGET, selector='job="x"', from_variables=frozenset({"target", "selector"})
    )
    system = system_of(options, NO_FILE, problems)
    assert system is not None, problems
    assert system.target_said == "TICKETBENCH_TARGET"
    assert system.source is not None
    assert system.source.selector_said == "TICKETBENCH_PROMETHEUS_SELECTOR"


def test_an_empty_flag_is_not_taken_for_none(tmp_path: Path) -> None:
    problems: list[str] = []
    assert system_of(ExternalOptions(target=""), plan_file(tmp_path, f'target = "{TARGET}"'), problems) is None
    assert problems == ["--target '' is empty"]


def test_what_is_recorded_names_no_host_and_no_value() -> None:
    options = ExternalOptions(
        target=TARGET, prometheus="http://localhost:9090", headers=("Authorization: Bearer abcdefgh",)
    )
    problems: list[str] = []
    system = system_of(options, NO_FILE, problems)
    assert system is not None, problems
    record = system.record()
    text = record.model_dump_json()
    assert not any(word in text for word in ("127.0.0.1", "localhost", "abcdefgh"))
    assert (record.scheme, record.where, record.port, record.path) == ("http", "loopback", 8000, "/shop")
    assert record.headers == ("Authorization",)
    assert "abcdefgh" not in repr(system)
    assert "abcdefgh" not in repr(options)
    words = planning.external_words(record)
    assert words[:2] == ["--target", TARGET]
    assert words[-1] == "Authorization: <value>"
    require_same(system, record)
    with pytest.raises(UsageError, match="port 8001 and 8000"):
        require_same(system, record.model_copy(update={"port": 8001}))


def test_of_another_machine_the_command_says_host_and_needs_the_permission_again() -> None:
    record = ExternalSystem(scheme="https", where="remote", port=443, path="")
    assert planning.external_words(record) == ["--target", "https://HOST:443", "--allow-remote-target"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("said Bearer abc-def-ghi", "said ***"),
        ("token=abc-def-ghi.", "token=***."),
        ("a Bearer of news", "a *** of news"),
        ('"q\\"uoted-secret"', '"***"'),
        ('{\\"k\\":\\"q\\\\\\"uoted-secret\\"}', '{\\"k\\":\\"***\\"}'),
        ("7 of 9", "7 of 9"),
    ],
)
def test_secrets_are_blotted_out_of_what_is_kept(text: str, kept: str) -> None:
    assert blot_out(text, ["Bearer abc-def-ghi", 'q"uoted-secret', "7"]) == kept

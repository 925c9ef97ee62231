"""What is said of planned faults, read, and whether a plan can hold it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketbench import factors
from ticketbench.errors import UsageError
from ticketbench.fault_plan import ACTIONS, COMPONENTS, LASTING, PlannedFault, parse_faults
from ticketbench.fault_rules import components, impossible
from ticketbench.model import Level, Schedule, Variant
from ticketbench.plan_file import find_plan, read_plan_file
from ticketbench.stack.companions import NAMES as COMPANIONS
from ticketbench.stack.replicas import MOST, replica

FAULTS = st.sampled_from(ACTIONS).flatmap(
    lambda action: st.builds(
        PlannedFault,
        action=st.just(action),
        component=st.sampled_from(COMPONENTS),
        at_s=st.integers(0, 3600).map(lambda tenths: tenths / 10),
        for_s=st.just(0.0) if action == "restart" else st.integers(1, 600).map(lambda tenths: tenths / 10),
        cores=st.integers(1, 400).map(lambda hundredths: hundredths / 100) if action == "cpu" else st.none(),
    )
)


@given(FAULTS)
def test_what_a_fault_says_of_itself_is_read_as_the_same_fault(fault: PlannedFault) -> None:
    assert parse_faults([fault.text]) == (fault,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not of the form ACTION COMPONENT"),
        ("pause redis", "is not of the form"),
        ("pause redis at 10 for 3 please", "is not of the form"),
        ("stop redis at 10 for 3", "'stop' is no fault: known are pause, kill, restart, disconnect, cpu"),
        ("pause k6 at 10 for 3", "'k6' is no component that a fault is done to: known are app"),
        ("pause app-9 at 10 for 3", "'app-9' is no component"),
        ("pause redis at ten for 3", "at 'ten' is not possible: it takes seconds from 0 to 86400"),
        ("pause redis at -1 for 3", "at '-1' is not possible"),
        ("pause redis at nan for 3", "at 'nan' is not possible"),
        ("pause redis at 1e3 for 3", "at '1e3' is not possible"),
        ("pause redis at ٣ for 3", "is not possible"),
        ("pause redis at 10", "pause needs for SECONDS"),
        ("pause redis at 10 for 0", "for '0' is not possible"),
        ("disconnect redis at 10", "disconnect needs for SECONDS"),
        ("restart app at 10 for 3", "restart takes no for"),
        ("cpu redis at 10 for 3", "cpu needs to CORES"),
        ("cpu redis to 0 at 10 for 3", "to '0' is not possible: it takes cores from 0.01"),
        ("pause redis to 0.5 at 10 for 3", "only cpu takes to CORES"),
    ],
)
def test_a_fault_that_cannot_be_is_told_by_its_own_words(text: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_faults([text])
    assert f"--fault {text!r}" in error.value.message
    assert words in error.value.message


def test_all_faults_of_all_options_are_told_at_once() -> None:
    with pytest.raises(UsageError) as error:
        parse_faults(["stop cache at x for y", "pause redis at 1"])
    assert len(error.value.problems) == 5


def test_every_component_that_the_stacks_have_can_have_a_fault() -> None:
    sales = {replica(number) for number in range(1, MOST + 1)}
    assert set(COMPONENTS) == sales | {"postgres", "redis", *COMPANIONS}
    assert set(LASTING) < set(ACTIONS)


def file_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(f'scenario = "spike"\n{text}')
    return path


def test_a_plan_file_plans_faults(tmp_path: Path) -> None:
    text = '[[fault]]\ndo = "cpu"\ncomponent = "postgres"\nto = 0.25\nat = 10\nfor = 5\n'
    file, problems = read_plan_file(
        file_of(tmp_path, text + '[[fault]]\ndo = "restart"\ncomponent = "app"\nat = 20.5\n')
    )
    assert problems == ()
    assert [fault.text for fault in file.faults] == ["cpu postgres to 0.25 at 10 for 5", "restart app at 20.5"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fault = 3", "fault is not a list of tables: write [[fault]] above each"),
        ('[[fault]]\ndo = "pause"\n', 'fault 1 lacks component, as in component = "redis"'),
        (
            '[[fault]]\ndo = "pause"\ncomponent = "redis"\nat = 1\nfor = 2\nwhy = 1\n',
            "fault 1 has no key 'why': known are do",
        ),
        ('[[fault]]\ndo = ["pause"]\ncomponent = "redis"\nat = 1\nfor = 2\n', "fault 1: ['pause'] is no fault"),
        ('[[fault]]\ndo = "pause"\ncomponent = "redis"\nat = true\nfor = 2\n', "fault 1: at True is not possible"),
        ('[[fault]]\ndo = "pause"\ncomponent = "redis"\nat = inf\nfor = 2\n', "fault 1: at inf is not possible"),
    ],
)
def test_a_table_that_cannot_be_is_told_by_its_number(tmp_path: Path, text: str, words: str) -> None:
    file, problems = read_plan_file(file_of(tmp_path, text))
    assert [problem for problem in problems if words in problem]
    assert file.faults == ()


def test_the_bundled_plan_can_be_carried_out_on_both_stacks() -> None:
    file, problems = read_plan_file(find_plan("planned-faults"))
    assert problems == ()
    assert len(file.faults) >= 3
    for stack in ("local", "docker"):
        assert problems_of(*(fault.text for fault in file.faults), stack=stack, window_s=60) == []


def problems_of(*texts: str, stack: str = "local", window_s: float = 30, **levels: Level) -> list[str]:
    variant = Variant(name="default", levels={**factors.defaults(), **levels})
    schedule = Schedule(
        window_start_s=5, window_end_s=5 + window_s, total_s=5 + window_s, offered=(), open_model=False, max_vus=1
    )
    return impossible(parse_faults(texts), stack, [variant], {"default": schedule})


@pytest.mark.parametrize(
    ("texts", "options", "words"),
    [
        (["pause redis at 28 for 3"], {}, "ends after 31 s, and the window of variant 'default' has 30 s"),
        (["kill redis at 30"], {}, "a fault is over before the window is"),
        (["pause haproxy at 1 for 1"], {}, "variant 'default' has no haproxy: set balancer=haproxy"),
        (["pause app-3 at 1 for 1"], {"replicas": 2}, "has no app-3: set replicas=3 or more"),
        (["pause pgbouncer at 1 for 1"], {}, "has no pgbouncer: set pooler=pgbouncer"),
        (["kill worker at 1"], {}, "has no worker: set checkout=queue"),
        (["restart redis at 1"], {"stack": "docker", "checkout": "queue"}, "the log that holds the queue of variant"),
        (["disconnect redis at 1 for 1"], {}, "the docker stack can do that"),
        (["kill app at 1"], {"stack": "docker"}, "with --set balancer=haproxy it can be done"),
        (["restart haproxy at 1"], {"stack": "docker", "replicas": 2}, "k6 calls from within the network of haproxy"),
        (["pause redis at 1 for 5", "kill redis at 6"], {}, "overlap: a component has one fault at a time"),
        (["pause redis at 1 for 5"], {"stack": "external"}, "this system is somebody else's"),
    ],
)
def test_a_fault_that_the_plan_has_no_room_for_is_refused(
    texts: list[str], options: dict[str, str | int], words: str
) -> None:
    stack = str(options.pop("stack", "local"))
    (problem,) = problems_of(*texts, stack=stack, **options)
    assert words in problem


def test_what_the_stacks_can_do_is_not_refused() -> None:
    assert problems_of("pause app at 1 for 1", "kill postgres at 3 for 2", "cpu redis to 0.1 at 1 for 20") == []
    assert problems_of("kill app-2 at 1", "restart app at 3", stack="docker", replicas=2) == []
    assert problems_of("disconnect redis at 1 for 2", stack="docker") == []
    assert problems_of("kill redis at 3", "kill worker at 9", checkout="queue") == []
    assert problems_of("kill worker at 3", stack="docker", checkout="queue") == []
    assert components({"pooler": "pgbouncer", "replicas": 2}) == (
        "app", "app-2", "postgres", "redis", "pgbouncer", "haproxy",
    )  # fmt: skip

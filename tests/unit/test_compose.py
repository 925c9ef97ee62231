"""compose/compose.yaml as records: what the bundled file says, and every fault that a file or a variable can have."""

from pathlib import Path

import pytest
import yaml

import ticketbench
from ticketbench import factors, paths
from ticketbench.errors import UsageError
from ticketbench.stack import payment
from ticketbench.stack.compose import Compose
from ticketbench.stack.compose_file import FAMILIES, read_compose
from ticketbench.stack.containers import companions
from ticketbench.stack.pgbouncer import Pooling
from ticketbench.stack.postgres import POSTGRES_SETTINGS
from ticketbench.stack.servers import PROMETHEUS_OPTIONS

ROOT = Path(__file__).parents[2]
# Where the two stacks cannot but differ: what they listen on.
OF_THE_LOCAL_STACK = {"listen_addresses", "unix_socket_directories"}

GOOD = """
name: shop
x-common: &common
  user: "10:10"
services:
  base:
    <<: *common
    image: ${TICKETBENCH_IMAGE_BASE:-base:1}
    command: [serve, --price, "5$$"]
    environment:
      WORD: ${SHOP_WORD:-}!
    cpus: ${TICKETBENCH_CPUS_BASE:-1.5}
    mem_limit: ${TICKETBENCH_MEMORY_BASE:-512m}
    configs:
      - source: words
        target: /etc/words
    volumes:
      - type: volume
        source: data
        target: /data
      - type: bind
        source: ../scripts
        target: /scripts
        read_only: true
    ports:
      - target: 80
        published: ${TICKETBENCH_PORT_BASE:-0}
        host_ip: 127.0.0.1
    healthcheck:
      test: [CMD, "true"]
      interval: 1m30s
      timeout: 5s
      retries: 3
      start_period: 1h
  load:
    <<: *common
    image: load:1
    profiles: [load]
    network_mode: service:base
volumes:
  data: {}
configs:
  words:
    content: |
      one ${SHOP_WORD:-two}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "compose.yaml"
    path.write_text(text)
    return path


def read(tmp_path: Path, text: str = GOOD, **variables: str) -> Compose:
    return read_compose(variables, write(tmp_path, text))


def problems(tmp_path: Path, text: str = GOOD, **variables: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text, **variables)
    assert "docs/docker.md" in caught.value.hint
    return [problem.removeprefix("compose.yaml: ") for problem in caught.value.problems]


# --- the bundled file -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundled() -> Compose:
    return read_compose({})


def test_the_stack_has_these_services(bundled: Compose) -> None:
    beside = {"pgbouncer", "haproxy", "payment", "worker", "k6", "grafana"}
    assert set(bundled.services) == {"app", "seed", "postgres", "redis", "prometheus", *beside}
    names = [service.name for service in bundled.start_order()]
    assert set(names) == {"app", "seed", "postgres", "redis", "prometheus"}
    assert names.index("postgres") < names.index("seed") < names.index("app")
    assert [service.name for service in bundled.start_order(("k6",))][-1] == "k6"
    both = [service.name for service in bundled.start_order(("pgbouncer", "haproxy"))]
    assert both.index("postgres") < both.index("pgbouncer") < both.index("app") < both.index("haproxy")
    paid = [service.name for service in bundled.start_order(("payment",))]
    assert paid.index("payment") < paid.index("app")


def test_postgres_is_set_as_the_local_one(bundled: Compose) -> None:
    first, *options = bundled.services["postgres"].command
    assert first == "postgres"
    assert set(options[::2]) == {"-c"}
    settings = dict(option.split("=", 1) for option in options[1::2])
    ours = {name: value for name, value in POSTGRES_SETTINGS.items() if name not in OF_THE_LOCAL_STACK}
    assert settings == ours | {"listen_addresses": "*"}


def test_the_companions_are_set_as_the_local_ones(bundled: Compose) -> None:
    """What a stack makes of them differs in passwords only, as long as no factor says otherwise."""
    word = "ticketbench"
    pooler = companions.pooler(("postgres", 5432), Pooling.of(factors.defaults()), sale=word, console=word)
    assert bundled.files("pgbouncer") == pooler.files
    assert bundled.files("haproxy") == companions.balancer(["app"], 8000, word).files
    provider = bundled.services["payment"]
    told = {name: text for name, text in provider.environment.items() if name != "PROVIDER_JOURNAL"}
    ours = payment.settings(factors.defaults(), "")
    assert {name: float(text) for name, text in told.items()} == {name: float(ours[name]) for name in told}
    assert set(told) | {"PROVIDER_JOURNAL"} == set(ours)
    assert provider.image == bundled.services["app"].image


def test_prometheus_is_set_as_the_local_one(bundled: Compose) -> None:
    service = bundled.services["prometheus"]
    places = ("--config.file=", "--storage.tsdb.path=", "--web.listen-address=")
    assert {option for option in service.command if not option.startswith(places)} == set(PROMETHEUS_OPTIONS)
    assert service.environment == {"GOMAXPROCS": "1"}
    [config] = bundled.files("prometheus").values()
    parsed = yaml.safe_load(config)
    assert parsed["global"] == {"scrape_interval": "1s", "scrape_timeout": "1s"}
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in parsed["scrape_configs"]}
    assert jobs == {"app": ["app:9101"], "worker": []}


def test_several_workers_are_scraped() -> None:
    compose = read_compose({"TICKETBENCH_METRICS_TARGETS": "app:9101, app:9102"})
    [config] = compose.files("prometheus").values()
    assert yaml.safe_load(config)["scrape_configs"][0]["static_configs"] == [{"targets": ["app:9101", "app:9102"]}]


def test_redis_writes_nothing_to_disk_and_wants_a_password() -> None:
    [config] = read_compose({"TICKETBENCH_PASSWORD_REDIS": "secret"}).files("redis").values()
    assert {"requirepass secret", 'save ""', "appendonly no"} <= set(config.splitlines())


def test_k6_is_in_the_network_of_the_app(bundled: Compose) -> None:
    k6 = bundled.services["k6"]
    assert k6.network_of == "app"
    assert k6.environment["BASE_URL"] == "http://127.0.0.1:8000"
    assert k6.environment["K6_PROMETHEUS_RW_SERVER_URL"] == "http://prometheus:9090/api/v1/write"


@pytest.mark.parametrize("name", ["app", "seed", "postgres", "redis", "prometheus", "k6", "grafana"])
def test_no_container_may_do_more_than_it_needs(bundled: Compose, name: str) -> None:
    service = bundled.services[name]
    assert service.cap_drop == ("ALL",)
    assert service.security_opt == ("no-new-privileges:true",)
    assert service.labels == {"ticketbench.stack": "compose"}
    assert {port.host_ip for port in service.ports} <= {"127.0.0.1"}
    assert {port.published for port in service.ports} <= {0}


def test_what_is_made_beside_the_containers_has_our_label(bundled: Compose) -> None:
    made = [*bundled.volumes.values(), *bundled.networks.values()]
    assert len(made) == 3
    assert {each.labels["ticketbench.stack"] for each in made} == {"compose"}


def test_each_image_can_be_another_one_and_is_pinned_by_default(bundled: Compose) -> None:
    variables = {name: f"mine/{name[18:].lower()}" for name in bundled.variables if name.startswith(FAMILIES[0])}
    changed = read_compose(variables)
    for name, service in bundled.services.items():
        assert service.image.rpartition(":")[2] not in {"", "latest"}
        assert changed.services[name].image.startswith("mine/")
    build = changed.services["app"].build
    assert build is not None
    assert build.args["PYTHON_IMAGE"] == "mine/python"
    assert changed.services["seed"].image == changed.services["app"].image


def test_the_app_image_is_of_this_version_and_built_from_what_is_there(bundled: Compose) -> None:
    app = bundled.services["app"]
    assert app.image == f"ticketbench-app:{ticketbench.__version__}"
    assert app.build is not None
    assert app.build.context == paths.data_dir("compose").parent
    assert (app.build.context / app.build.dockerfile).is_file()
    assert (app.build.context / "target_app" / "__main__.py").is_file()


def test_every_variable_is_documented(bundled: Compose) -> None:
    told = (ROOT / "docs" / "docker.md").read_text()
    assert [name for name in sorted(bundled.variables) if f"`{name}`" not in told] == []


def test_passwords_are_not_shown(bundled: Compose) -> None:
    compose = read_compose({"TICKETBENCH_PASSWORD_SALE": "hush-hush", "TICKETBENCH_PASSWORD_POSTGRES": "hush-too"})
    assert "hush" in compose.services["seed"].environment["TARGET_DATABASE_URL"]
    assert "hush" not in repr(compose)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_values_become_what_they_stand_for(tmp_path: Path) -> None:
    base = read(tmp_path).services["base"]
    assert base.image == "base:1"
    assert base.user == "10:10"
    assert base.command == ("serve", "--price", "5$")
    assert base.environment == {"WORD": "!"}
    assert base.cpus == 1.5
    assert base.memory_bytes == 512 * 1024**2
    assert base.memory_swap_bytes == 0
    assert base.healthcheck is not None
    assert (base.healthcheck.interval_s, base.healthcheck.start_period_s) == (90, 3600)
    assert [mount.source for mount in base.volumes] == ["data", str(tmp_path.parent.resolve() / "scripts")]
    assert base.network_of is None


def test_variables_take_the_place_of_defaults(tmp_path: Path) -> None:
    compose = read(
        tmp_path,
        TICKETBENCH_IMAGE_BASE="other:2",
        TICKETBENCH_CPUS_BASE="0.25",
        TICKETBENCH_MEMORY_BASE="1.5 GiB",
        TICKETBENCH_PORT_BASE="8080",
        SHOP_WORD="three",
    )
    base = compose.services["base"]
    assert (base.image, base.cpus, base.memory_bytes) == ("other:2", 0.25, 1536 * 1024**2)
    assert base.ports[0].published == 8080
    assert base.environment == {"WORD": "three!"}
    assert compose.files("base") == {"/etc/words": "one three\n"}


def test_an_empty_variable_is_none(tmp_path: Path) -> None:
    assert read(tmp_path, TICKETBENCH_IMAGE_BASE="").services["base"].image == "base:1"


def test_a_value_is_not_looked_at_for_further_variables(tmp_path: Path) -> None:
    assert read(tmp_path, SHOP_WORD="${OTHER:-x}$").services["base"].environment == {"WORD": "${OTHER:-x}$!"}


def test_what_belongs_to_a_profile_starts_only_with_it(tmp_path: Path) -> None:
    compose = read(tmp_path)
    assert [service.name for service in compose.start_order()] == ["base"]
    assert [service.name for service in compose.start_order(("load",))] == ["base", "load"]


def test_records_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        read(tmp_path).services["base"].cpus = 4.0  # type: ignore[misc]


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("cpus:", "cpu:", "service base: there is no key 'cpu': known are image, user, build,"),
        (
            "        read_only",
            "        readonly",
            "service base: volumes: 1: there is no key 'readonly': known are type,",
        ),
        (
            "      retries",
            "      retry",
            "service base: healthcheck: there is no key 'retry': known are test, interval,",
        ),
        ("volumes:\n  data", "volume:\n  data", "there is no key 'volume': known are name, services, volumes,"),
        ("    profiles:", "    name: x\n    profiles:", "service load: there is no key 'name': known are image,"),
        ('"10:10"', "root", "service base: user is root"),
        ('"10:10"', '"0:10"', "service base: user is root"),
        ("host_ip: 127.0.0.1", "host_ip: 0.0.0.0", "service base: ports.0.host_ip should be '127.0.0.1'"),
        ("target: 80\n", "target: true\n", "service base: ports.0.target is not a number"),
        ("${TICKETBENCH_CPUS_BASE:-1.5}", "true", "service base: cpus is not a number"),
        ("${TICKETBENCH_CPUS_BASE:-1.5}", "-1", "service base: cpus should be greater than or equal to 0"),
        ("${TICKETBENCH_MEMORY_BASE:-512m}", "512q", "service base: mem_limit is not a size such as 512m"),
        ("interval: 1m30s", "interval: soon", "service base: healthcheck.interval is not a duration such as 90s"),
        ("interval: 1m30s", "interval: 1s", "service base: healthcheck.interval should be greater than or equal to 30"),
        ('[CMD, "true"]', "[CMD-SHELL, x]", "service base: healthcheck test does not begin with CMD"),
        ("image: load:1", "build: {}", "service load: image is required"),
        ("image: load:1", "image: 1", "service load: image should be a valid string"),
        ("target: /etc/words", "target: words", "service base: configs.0.target is not an absolute path"),
        ("type: bind", "type: tmpfs", "service base: volumes.1.type should be 'volume' or 'bind'"),
        ("source: words", "source: word", "service base: there is no config 'word': known are words"),
        ("source: data", "source: date", "service base: there is no volume 'date': known are data"),
        ("service:base", "service:bass", "service load: there is no service 'bass': known are base, load"),
        ("service:base", "host", "service load: network_mode is not service:NAME"),
        ("service:base", "service:load", "services wait for each other: load -> load"),
        ("$$", "$HOME", "services.base.command.2 has '$HOME': known are ${NAME:-default} and $$"),
        ("$$", "${HOME}", "services.base.command.2 has '${HOME}': known are ${NAME:-default} and $$"),
        ("  data: {}", "  data: []", "volume data is not a mapping"),
        ("name: shop", "name: [shop]", "name is missing or no text"),
        ("    content: |", "    contents: |", "config words: there is no key 'contents': known are content"),
    ],
)
def test_a_fault_of_the_file_is_named_with_its_place(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert old in GOOD
    found = problems(tmp_path, GOOD.replace(old, new, 1))
    assert any(problem.startswith(fault) for problem in found), found


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        (
            "TICKETBENCH_CPUS_BASE",
            "many",
            "service base: cpus = 'many' (TICKETBENCH_CPUS_BASE) should be a valid number",
        ),
        ("TICKETBENCH_CPUS_BASE", "nan", "service base: cpus = 'nan' (TICKETBENCH_CPUS_BASE) should be"),
        ("TICKETBENCH_MEMORY_BASE", "lots", "service base: mem_limit = 'lots' (TICKETBENCH_MEMORY_BASE) is not a size"),
        (
            "TICKETBENCH_PORT_BASE",
            "70000",
            "service base: ports.0.published = '70000' (TICKETBENCH_PORT_BASE) should be",
        ),
        (
            "TICKETBENCH_IMAGE_BAES",
            "x",
            "there is no variable TICKETBENCH_IMAGE_BAES: known are TICKETBENCH_IMAGE_BASE",
        ),
        ("TICKETBENCH_PASSWORD_BASE", "x", "there is no variable TICKETBENCH_PASSWORD_BASE: known are none"),
    ],
)
def test_a_fault_of_a_variable_is_named_with_it(tmp_path: Path, name: str, value: str, fault: str) -> None:
    [found] = problems(tmp_path, **{name: value})
    assert found.startswith(fault)


def test_a_password_that_would_need_quotes_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        read_compose({"TICKETBENCH_PASSWORD_SALE": "o'hara"})
    assert caught.value.problems == ("TICKETBENCH_PASSWORD_SALE may hold letters, digits, - and _ only",)


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("cpus:", "cpu:").replace("source: words", "source: word").replace("image: load:1", "image: 1")
    assert len(problems(tmp_path, text, TICKETBENCH_PORT_BASE="x", TICKETBENCH_IMAGE_LOAD="y")) == 5


def test_a_fault_does_not_make_others_up(tmp_path: Path) -> None:
    # `load` needs `base`, which is there, though it is not right
    [found] = problems(tmp_path, GOOD, TICKETBENCH_PORT_BASE="x")
    assert found.startswith("service base: ports.0.published")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("services: [", "cannot be read"),
        ("services: !reset x", "cannot be read"),
        ("- a list", "is not a mapping"),
        ("name: x", "services is not a mapping of names"),
        ("name: x\nservices: {1: {}}", "services is not a mapping of names"),
    ],
)
def test_what_is_no_compose_file_is_said_to_be_none(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        read(tmp_path, text)


def test_a_missing_file_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_compose({}, tmp_path / "compose.yaml")

"""Redis's figures, from one INFO a second."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ticketbench.sampling.counters import Counters
from ticketbench.sampling.push import Sample

_TIMEOUT_S: Final = 2.0
# What the sampler itself asks, and what a client says when it connects.
_OUR_COMMANDS: Final = frozenset({"info", "client", "hello", "auth", "select"})
_COUNTS: Final = {"keyspace_hits": "hits", "keyspace_misses": "misses", "evicted_keys": "evictions"}


class RedisInfo:
    """Samples of one server; counters grow from the first :meth:`tick` on, also over a restart or CONFIG RESETSTAT."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            client_name="ticketbench-sampler",
            retry=Retry(NoBackoff(), 0),  # the next tick is the retry
        )
        self._first = True
        self._counts: Counters[str] = Counters()
        self._calls: Counters[str] = Counters()
        self._seconds: Counters[str] = Counters()
        self._gauges: dict[str, float] = {}

    def tick(self) -> None:
        """Read the server's figures. Raises redis.RedisError."""
        info: Mapping[str, Any] = self._client.info("all")
        baseline = self._first
        self._first = False
        for key, name in _COUNTS.items():
            self._counts.read(name, float(info.get(key, 0)), baseline=baseline)
        cpu_s = float(info.get("used_cpu_user", 0)) + float(info.get("used_cpu_sys", 0))
        self._counts.read("cpu_seconds", cpu_s, baseline=baseline)
        self._gauges = {
            "tb_redis_memory_bytes": float(info.get("used_memory", 0)),
            "tb_redis_clients": float(info.get("connected_clients", 0)),
        }
        for key, value in info.items():
            if not key.startswith("cmdstat_"):
                continue
            command = key.removeprefix("cmdstat_").lower()
            if command.partition("|")[0] not in _OUR_COMMANDS:
                self._calls.read(command, float(value["calls"]), baseline=baseline)
                self._seconds.read(command, float(value["usec"]) / 1e6, baseline=baseline)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def samples(self) -> Iterator[Sample]:
        """Yield the figures of the last tick."""
        for name, total in self._counts.items():
            yield f"tb_redis_{name}_total", (), total
        for gauge, value in self._gauges.items():
            yield gauge, (), value
        for command, calls in self._calls.items():
            yield "tb_redis_commands_total", (("command", command),), calls
            yield "tb_redis_command_seconds_total", (("command", command),), self._seconds[command]

"""The command line: ``python -m target_app settings | init-db | serve | work | payment``.

Exit codes: 0 good; 1 could not start, or a worker ended by itself; 2 a wrong option. What is heavy is imported by the
command that needs it: the supervisor of a sale needs none of it.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from target_app.errors import StartupError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Usage errors exit with 2."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        match options.command:
            case "settings":
                return _settings()
            case "init-db":
                return _init_db(reset=options.reset, keep=options.keep, wait_s=options.wait_s)
            case "serve" | "work":
                return _serve(parser, options)
            case "payment":
                return _payment(options.host, options.port)
            case "queue-worker":
                return _queue_worker(options)
            case _:
                return _worker(options)
    except StartupError as error:
        sys.stderr.write(f"target_app: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m target_app", description="A ticket sale, to be load-tested.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("settings", help="print the JSON schema of all settings (TARGET_* in the environment)")

    init_db = commands.add_parser("init-db", help="create and fill the tables at TARGET_DATABASE_URL")
    there = init_db.add_mutually_exclusive_group()
    there.add_argument("--reset", action="store_true", help="drop the sale that the database holds first")
    there.add_argument("--keep", action="store_true", help="do nothing where the database holds a sale")
    init_db.add_argument(
        "--wait-s",
        type=float,
        default=0,
        metavar="S",
        help="keep trying so long until the database answers (default: 0)",
    )

    serve = commands.add_parser("serve", help="serve until SIGTERM or SIGINT")
    _workers(serve, "TARGET_WORKERS")
    where = serve.add_mutually_exclusive_group(required=True)
    where.add_argument("--fd", type=int, help="take over this listening socket")
    where.add_argument("--port", type=int, help="listen here")
    serve.add_argument("--host", default="127.0.0.1", help="address of --port (default: %(default)s)")
    _metrics_host(serve)

    payment = commands.add_parser("payment", help="serve the payment provider until SIGTERM or SIGINT (PROVIDER_*)")
    payment.add_argument("--port", type=int, required=True, help="listen here")
    payment.add_argument("--host", default="127.0.0.1", help="address of --port (default: %(default)s)")
    work = commands.add_parser("work", help="do queued purchases (TARGET_CHECKOUT=queue) until SIGTERM or SIGINT")
    _workers(work, "TARGET_QUEUE_WORKERS")
    _metrics_host(work)
    work.set_defaults(fd=None, port=None, host="")

    worker = commands.add_parser("worker", help="one process of `serve`; not to be started by hand")
    worker.add_argument("--fd", type=int, required=True)
    worker.add_argument("--metrics-port", type=int, required=True)
    _metrics_host(worker)
    worker.add_argument("--parent", type=int, required=True)

    queue_worker = commands.add_parser("queue-worker", help="one process of `work`; not to be started by hand")
    queue_worker.add_argument("--metrics-port", type=int, required=True)
    _metrics_host(queue_worker)
    queue_worker.add_argument("--parent", type=int, required=True)
    return parser


def _workers(command: argparse.ArgumentParser, variable: str) -> None:
    command.add_argument("--workers", type=int, metavar="N", help=f"processes (default: {variable})")
    metrics = command.add_mutually_exclusive_group(required=True)
    metrics.add_argument("--metrics-ports", metavar="A,B,...", help="one port for each worker's metrics")
    metrics.add_argument(
        "--first-metrics-port", type=int, metavar="A", help="the first worker's; the others follow on it"
    )


def _metrics_host(command: argparse.ArgumentParser) -> None:
    command.add_argument("--metrics-host", default="127.0.0.1", help="address of the metrics (default: %(default)s)")


def _settings() -> int:
    from target_app.settings import Settings

    sys.stdout.write(json.dumps(Settings.model_json_schema(), indent=2) + "\n")
    return 0


def _init_db(*, reset: bool, keep: bool, wait_s: float) -> int:
    from target_app import settings
    from target_app.seed import init_db

    init_db(settings.load(), reset=reset, keep=keep, wait_s=wait_s)
    return 0


def _serve(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from target_app import supervisor

    workers = options.workers
    if workers is None:
        from target_app import settings

        told = settings.load()
        workers = told.workers if options.command == "serve" else told.queue_workers
    ports = _metrics_ports(parser, options, workers)
    return supervisor.serve(
        supervisor.Serving(
            metrics_ports=ports,
            metrics_host=options.metrics_host,
            host=options.host,
            port=options.port,
            fd=options.fd,
        )
    )


def _payment(host: str, port: int) -> int:
    from target_app.provider import service

    return service.serve(host, port)


def _metrics_ports(parser: argparse.ArgumentParser, options: argparse.Namespace, workers: int) -> tuple[int, ...]:
    if options.metrics_ports is None:
        first: int = options.first_metrics_port
        if workers < 1 or not 1 <= first <= 65536 - workers:
            parser.error(f"--first-metrics-port {first}: no {workers} ports from there on")
        return tuple(range(first, first + workers))
    try:
        ports = tuple(int(port) for port in options.metrics_ports.split(","))
    except ValueError:
        parser.error(f"--metrics-ports {options.metrics_ports}: not port numbers with commas between them")
    if workers < 1 or len(ports) != workers:
        parser.error(f"--metrics-ports names {len(ports)} ports for {workers} workers: one each is needed")
    return ports


def _queue_worker(options: argparse.Namespace) -> int:
    from target_app import queue_worker

    return queue_worker.run(
        metrics_host=options.metrics_host, metrics_port=options.metrics_port, parent_pid=options.parent
    )


def _worker(options: argparse.Namespace) -> int:
    from target_app import worker

    return worker.run(
        fd=options.fd,
        metrics_host=options.metrics_host,
        metrics_port=options.metrics_port,
        parent_pid=options.parent,
    )

"""Cases of run folders: two runs at a time, and what becomes of a run whose files are damaged."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator

from tests.faults.case import WHOLE, Case, Wanted
from tests.faults.scene import PROGRAM, After, Scene

# --- two at a time ----------------------------------------------------------------------------------------------------


def _beside(script: str) -> Callable[[Scene], After]:
    def play(scene: Scene) -> After:
        shutil.copy(scene.folder / "sale.js", scene.folder / "other.js")
        scene.start()
        other = subprocess.Popen(
            [PROGRAM, "run", script],
            cwd=scene.folder,
            env=scene.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _, said = other.communicate(timeout=120)
        finally:
            other.kill()
            other.wait()
        after = scene.end()
        if other.returncode not in WHOLE:
            after.err += f"\nticketbench: the other run ended with {other.returncode}: {said[-300:]}"
        return after

    return play


def _both_whole(_: Scene, after: After) -> str | None:
    if len(after.runs) != 2:
        return f"{len(after.runs)} runs are stored, not 2"
    if len(after.trials) != 2 or any(trial["status"] != "done" for trial in after.trials.values()):
        return "not both trials are done"
    return None


def _both_marked(scene: Scene, after: After) -> str | None:
    """Each run's record or trial must name the other."""
    for name in after.runs:
        text = "".join(path.read_text() for path in (scene.output / name).rglob("*.json"))
        others = [other for other in after.runs if other != name]
        if not any(other in text for other in others):
            return f"{name} does not say that it shared the machine"
    return None


def pair_cases() -> Iterator[Case]:
    """Yield two runs at a time."""
    for fault, script in (("same scenario", "sale.js"), ("another scenario", "other.js")):
        wanted = Wanted((0, 1, 3), messages=0, trial=True, report=True, series=True, ledger=True, acks=True)
        yield Case("two runs", "all", fault, _beside(script), wanted, [_both_whole, _both_marked])


# --- run directories --------------------------------------------------------------------------------------------------


def _damaged(file: str, damage: Callable[[bytes], bytes]) -> Callable[[Scene], After]:
    def play(scene: Scene) -> After:
        scene.start("run", "sale.js")
        scene.end()
        (run,) = scene.output.iterdir()
        path = run / file
        path.write_bytes(damage(path.read_bytes()))
        for made in (*run.glob("report.*"), run / "analysis.json"):
            made.unlink()
        scene.start("show", str(run))
        return scene.end()

    return play


def _newer(content: bytes) -> bytes:
    return json.dumps({**json.loads(content), "schema_version": 99}).encode()


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def run_cases() -> Iterator[Case]:
    """Yield run directories that were damaged later."""
    yield Case("run directory", "later", "run.json cut off", _damaged("run.json", _half), Wanted((2,), "run.json"))
    yield Case(
        "run directory",
        "later",
        "run.json of a newer version",
        _damaged("run.json", _newer),
        Wanted((2,), "newer|version"),
    )
    yield Case("run directory", "later", "trial.json cut off", _damaged("trials/001/trial.json", _half), Wanted((2, 3)))
    yield Case("run directory", "later", "series cut off", _damaged("trials/001/series.csv.gz", _half), Wanted((2, 3)))

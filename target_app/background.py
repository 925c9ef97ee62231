"""Work that goes on beside the requests of a worker, from its start to its end."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

_STOP_S: Final = 0.2


class Background:
    """One task. ``lost`` says what is the matter where a bug has ended it: that is logged as soon as it has."""

    def __init__(self, lost: str) -> None:
        self._lost = lost
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin, on the running loop."""
        self._task = asyncio.create_task(work)
        self._task.add_done_callback(self._told)

    async def stop(self) -> None:
        """End it, in the middle of whatever it is at. Raises what a bug has ended it with. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        while not task.done():  # a library may have taken the cancellation for an end of its own statement
            task.cancel()
            await asyncio.wait([task], timeout=_STOP_S)
        if not task.cancelled():
            task.result()

    def _told(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler({"message": self._lost, "exception": error})

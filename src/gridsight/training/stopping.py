"""Asking a run to stop: Ctrl-C and termination signals are kept until a step has ended."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gridsight.core.errors import TrainingError


class Stopped(TrainingError):
    """The user asked to stop: a snapshot was saved, and `resume` goes on from there."""


@contextmanager
def stoppable() -> Iterator[list[int]]:
    """A list that the first Ctrl-C or termination signal makes non-empty; a second Ctrl-C stops at once.

    Saving inside a step would tear the state, so the loop looks at the list between steps.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

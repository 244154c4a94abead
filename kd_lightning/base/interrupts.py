"""Ctrl-C and SIGTERM end a run cleanly. The message names the command that resumes it."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import NoReturn


class Interrupted(BaseException):
    """A signal has stopped a run. This is no ``Exception``, so ``except Exception`` ignores it.

    Args:
        signum: the number of the signal.
        advice: how to resume.
    """

    def __init__(self, signum: int, advice: str = "") -> None:
        super().__init__(advice)
        self.signum = signum
        self.advice = advice


FORCE_AFTER = 1.0  # seconds after the first signal from which on a second one is not delayed

# How many ``delay_interrupts`` blocks the main thread is in.
_depth = 0
# The delayed interrupt, if there is one: when its signal came, and the function that raises it. The
# signal itself is not sent again, because Lightning's own handler would count two signals.
_delayed: tuple[float, Callable[[], NoReturn]] | None = None


@contextmanager
def interruptible(advice: str = "") -> Iterator[None]:
    """Inside, the first SIGINT or SIGTERM raises ``Interrupted``. Later signals are ignored, so
    that they do not disturb the clean-up. In a thread other than the main one, nothing changes.

    Args:
        advice: how to resume.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        global _delayed
        now = time.monotonic()
        # a flag, not another handler: Lightning's teardown restores the handlers that it has found
        if is_stopping:
            return
        if not _depth or (_delayed is not None and now - _delayed[0] > FORCE_AFTER):
            raise_interrupted(signum)
        _delayed = _delayed or (now, partial(raise_interrupted, signum))

    def raise_interrupted(signum: int) -> NoReturn:
        global _delayed
        nonlocal is_stopping
        _delayed, is_stopping = None, True
        raise Interrupted(signum, advice)

    is_stopping = False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def delay_interrupts() -> Iterator[None]:
    """Inside, ``Interrupted`` is delayed until the end of the block. A second signal that comes
    more than ``FORCE_AFTER`` seconds after the first one is not delayed.

    It is for writing to a database: an unfinished transaction keeps the database locked as long as
    anything holds the traceback.
    """
    global _depth
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth and _delayed is not None:
            _delayed[1]()

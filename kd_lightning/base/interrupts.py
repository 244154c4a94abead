"""Ctrl-C and SIGTERM end a run cleanly, with the command that goes on with it."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import NoReturn


class Interrupted(BaseException):
    """A run was asked to stop. Not an ``Exception``: nothing may take it for an error.

    Args:
        signum: the signal that asked.
        advice: what to do to go on.
    """

    def __init__(self, signum: int, advice: str = "") -> None:
        super().__init__(advice)
        self.signum = signum
        self.advice = advice


PATIENCE = 1.0  # seconds after which a second signal is somebody's who will not wait

# How deep the main thread is in what may not be cut in two; since when something waits for its
# end, and what that will do. Not the signal once more: Lightning's own handler would see two.
_depth = 0
_waiting: tuple[float, Callable[[], NoReturn]] | None = None


@contextmanager
def interruptible(advice: str = "") -> Iterator[None]:
    """Inside, SIGINT and SIGTERM raise ``Interrupted``, once: a second one does not cut short what
    the first one set going. In a thread that is not the main one, nothing changes.

    Args:
        advice: what to do to go on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        global _waiting
        now = time.monotonic()
        if is_stopping:  # kept here: Lightning's teardown sets the handlers that it has met
            return
        if not _depth or (_waiting is not None and now - _waiting[0] > PATIENCE):
            raise_interrupted(signum)
        _waiting = _waiting or (now, partial(raise_interrupted, signum))

    def raise_interrupted(signum: int) -> NoReturn:
        global _waiting
        nonlocal is_stopping
        _waiting, is_stopping = None, True
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
def in_one_piece() -> Iterator[None]:
    """What happens inside is not cut in two by ``Interrupted``, which waits for its end; not, if a
    second signal comes more than ``PATIENCE`` after the first.

    For a database: a transaction left where it stood keeps the database locked for as long as
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
        if not _depth and _waiting is not None:
            _waiting[1]()

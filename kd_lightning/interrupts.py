"""Ctrl-C and SIGTERM end a run cleanly, with the command that goes on with it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


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


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM raise ``Interrupted``, once: a second one does not cut short what
    the first one set going. In a thread that is not the main one, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def raise_interrupted(signum: int, frame: FrameType | None) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise Interrupted(signum)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, raise_interrupted)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

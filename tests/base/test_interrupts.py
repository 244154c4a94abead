import signal
import threading

import pytest

from kd_lightning.base import interrupts
from kd_lightning.base.interrupts import Interrupted, in_one_piece, interruptible

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts_what_runs_inside(number: signal.Signals) -> None:
    with pytest.raises(Interrupted) as caught, interruptible():
        signal.raise_signal(number)
    assert caught.value.signum == number


def test_an_interrupt_is_no_error_that_may_be_handled() -> None:
    assert not issubclass(Interrupted, Exception)
    assert Interrupted(2, "go on").advice == "go on"


@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_does_not_cut_short_what_the_first_set_going(second: int) -> None:
    cleaned = []

    def run() -> None:
        with interruptible():
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                signal.raise_signal(second)
                cleaned.append(True)

    with pytest.raises(Interrupted) as caught:
        run()
    assert cleaned
    assert caught.value.signum == signal.SIGINT


def test_not_even_if_the_handlers_are_set_again() -> None:
    cleaned = []

    def run() -> None:
        with interruptible():
            handler = signal.getsignal(signal.SIGTERM)
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.signal(signal.SIGTERM, handler)  # as Lightning's teardown does
                signal.raise_signal(signal.SIGTERM)
                cleaned.append(True)

    with pytest.raises(Interrupted):
        run()
    assert cleaned


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_the_end_of_what_is_done_in_one_piece(number: signal.Signals) -> None:
    done = []

    def run() -> None:
        with interruptible("go on"):
            with in_one_piece():
                with in_one_piece():
                    signal.raise_signal(number)
                    signal.raise_signal(signal.SIGTERM)  # a scheduler may send two at once
                done.append("all of it")
            done.append("what comes after it")

    with pytest.raises(Interrupted) as caught:
        run()
    assert done == ["all of it"]
    assert (caught.value.signum, caught.value.advice) == (number, "go on")
    with interruptible(), in_one_piece():  # nothing is left of it
        pass


def test_a_second_signal_some_time_later_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interrupts, "PATIENCE", -1.0)
    done = []

    def run() -> None:
        with interruptible(), in_one_piece():
            signal.raise_signal(signal.SIGINT)
            done.append("the first waits")
            signal.raise_signal(signal.SIGINT)
            done.append("the second too")

    with pytest.raises(Interrupted):
        run()
    assert done == ["the first waits"]


def test_one_piece_of_another_thread_keeps_nothing_waiting() -> None:
    inside, over, waited = threading.Event(), threading.Event(), []

    def work() -> None:
        with in_one_piece():
            inside.set()
            over.wait()

    def run() -> None:
        with interruptible():
            signal.raise_signal(signal.SIGTERM)
            waited.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    try:
        with pytest.raises(Interrupted):
            run()
    finally:
        over.set()
        thread.join()
    assert not waited


def test_handlers_are_given_back_after_an_end_and_after_an_interrupt() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with interruptible():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with pytest.raises(Interrupted), interruptible():
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_thread_that_cannot_handle_signals_changes_nothing() -> None:
    seen = []

    def work() -> None:
        with interruptible():
            seen.append([signal.getsignal(number) for number in SIGNALS])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [[signal.getsignal(number) for number in SIGNALS]]

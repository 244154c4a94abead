import signal
import threading

import pytest

from kd_lightning.base import interrupts
from kd_lightning.base.interrupts import Interrupted, delay_interrupts, interruptible

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts_the_block(number: signal.Signals) -> None:
    with pytest.raises(Interrupted) as caught, interruptible():
        signal.raise_signal(number)
    assert caught.value.signum == number


def test_an_interrupt_is_no_exception_that_could_be_handled() -> None:
    assert not issubclass(Interrupted, Exception)
    assert Interrupted(2, "resume").advice == "resume"


@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_does_not_interrupt_the_clean_up(second: int) -> None:
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


def test_it_does_not_either_if_the_handlers_are_restored() -> None:
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
def test_a_signal_is_delayed_to_the_end_of_the_block(number: signal.Signals) -> None:
    done = []

    def run() -> None:
        with interruptible("resume"):
            with delay_interrupts():
                with delay_interrupts():
                    signal.raise_signal(number)
                    signal.raise_signal(signal.SIGTERM)  # a scheduler may send two at once
                done.append("inner block")
            done.append("outer block")

    with pytest.raises(Interrupted) as caught:
        run()
    assert done == ["inner block"]
    assert (caught.value.signum, caught.value.advice) == (number, "resume")
    with interruptible(), delay_interrupts():  # no interrupt is left
        pass


def test_a_second_signal_some_time_later_is_not_delayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interrupts, "FORCE_AFTER", -1.0)
    done = []

    def run() -> None:
        with interruptible(), delay_interrupts():
            signal.raise_signal(signal.SIGINT)
            done.append("the first is delayed")
            signal.raise_signal(signal.SIGINT)
            done.append("the second too is delayed")

    with pytest.raises(Interrupted):
        run()
    assert done == ["the first is delayed"]


def test_a_block_in_another_thread_delays_nothing() -> None:
    entered, finished, after_signal = threading.Event(), threading.Event(), []

    def work() -> None:
        with delay_interrupts():
            entered.set()
            finished.wait()

    def run() -> None:
        with interruptible():
            signal.raise_signal(signal.SIGTERM)
            after_signal.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait()
    try:
        with pytest.raises(Interrupted):
            run()
    finally:
        finished.set()
        thread.join()
    assert not after_signal


def test_handlers_are_restored_after_the_block_and_after_an_interrupt() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with interruptible():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with pytest.raises(Interrupted), interruptible():
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_in_another_thread_no_handler_changes() -> None:
    handlers = []

    def work() -> None:
        with interruptible():
            handlers.append([signal.getsignal(number) for number in SIGNALS])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [[signal.getsignal(number) for number in SIGNALS]]

import signal
import threading

import pytest

from kd_lightning.interrupts import Interrupted, interruptible

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

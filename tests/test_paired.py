"""The timing of pairs, on a clock that is made up."""

import pytest

from benchmarks import paired


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(paired.time, "perf_counter", lambda: now[0])
    return now


def test_a_ratio_is_of_times_and_a_drift_falls_on_both(clock: list[float]) -> None:
    slower = iter(range(10**9))

    def taking(seconds: float) -> paired.Step:
        def step() -> None:
            clock[0] += seconds * (1 + next(slower) * 1e-4)  # each step slower than the one before

        return step

    found = paired.compare(taking(0.03), taking(0.02), pairs=31)
    assert found.median == pytest.approx(1.5, rel=1e-3)
    assert found.low <= found.median <= found.high
    assert paired.compare(taking(0.02), taking(0.02), pairs=31).median == pytest.approx(1, rel=1e-3)


def test_blocks_are_long_enough_to_be_timed(clock: list[float]) -> None:
    steps = [0]

    def step() -> None:
        steps[0] += 1
        clock[0] += 0.001

    paired.compare(step, step, pairs=2)
    assert steps[0] >= 2 * 4 * paired.BLOCK / 0.001


def test_the_interval_is_as_wide_as_the_pairs_are_noisy(clock: list[float]) -> None:
    def pairs_of(first: float, second: float) -> paired.Ratio:
        # blocks of one step: in turn, both of a pair take the first time, or both the second
        times = iter([1.0] * 4 + [first, first, second, second] * 1000)

        def noisy() -> None:
            clock[0] += next(times)

        def steady() -> None:
            clock[0] += 1.0

        return paired.compare(noisy, steady, pairs=31)

    quiet, noisy = pairs_of(1.2, 1.2), pairs_of(0.8, 1.6)
    assert quiet.high - quiet.low == pytest.approx(0, abs=1e-9)
    assert (noisy.low, noisy.high) == pytest.approx((0.8, 1.6))

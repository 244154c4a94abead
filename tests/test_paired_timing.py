"""Timing in pairs, with a simulated clock."""

import pytest

from benchmarks import paired_timing


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(paired_timing.time, "perf_counter", lambda: now[0])
    return now


def test_a_drift_of_the_machine_does_not_change_the_ratio(clock: list[float]) -> None:
    slower = iter(range(10**9))

    def taking(seconds: float) -> paired_timing.Step:
        def step() -> None:
            clock[0] += seconds * (1 + next(slower) * 1e-4)  # each step slower than the one before

        return step

    ratio = paired_timing.compare(taking(0.03), taking(0.02), pairs=31)
    assert ratio.median == pytest.approx(1.5, rel=1e-3)
    assert ratio.low <= ratio.median <= ratio.high
    assert paired_timing.compare(taking(0.02), taking(0.02), pairs=31).median == pytest.approx(
        1, rel=1e-3
    )


def test_blocks_are_at_least_as_long_as_required(clock: list[float]) -> None:
    steps = [0]

    def step() -> None:
        steps[0] += 1
        clock[0] += 0.001

    paired_timing.compare(step, step, pairs=2)
    assert steps[0] >= 2 * 4 * paired_timing.MIN_BLOCK_SECONDS / 0.001


def test_noisy_pairs_have_a_wide_interval(clock: list[float]) -> None:
    def pairs_of(first: float, second: float) -> paired_timing.Ratio:
        # blocks of one step; in one pair both blocks take `first`, in the next both take `second`
        times = iter([1.0] * 4 + [first, first, second, second] * 1000)

        def noisy() -> None:
            clock[0] += next(times)

        def steady() -> None:
            clock[0] += 1.0

        return paired_timing.compare(noisy, steady, pairs=31)

    quiet, noisy = pairs_of(1.2, 1.2), pairs_of(0.8, 1.6)
    assert quiet.high - quiet.low == pytest.approx(0, abs=1e-9)
    assert (noisy.low, noisy.high) == pytest.approx((0.8, 1.6))

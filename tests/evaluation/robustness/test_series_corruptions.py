import numpy as np
import pytest

from kd_lightning.evaluation.robustness.series_corruptions import KINDS, corrupt_series, kinds_for

X = np.random.default_rng(1).normal(size=(4, 60)).cumsum(1)
MEAN, STD = X.mean(1, keepdims=True), X.std(1, keepdims=True)


def corrupted(kind: str, severity: int, x: np.ndarray = X, seed: int = 0) -> np.ndarray:
    return corrupt_series(x, kind, severity, MEAN[: len(x)], STD[: len(x)],
                          np.random.default_rng(seed))  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_series_keeps_its_shape_changes_and_follows_from_the_seed(kind: str) -> None:
    before = X.copy()
    for severity in range(1, 6):
        result = corrupted(kind, severity)
        assert result.shape == X.shape
        assert np.isfinite(result).all()
        assert not np.allclose(result, X)
        assert (result == corrupted(kind, severity)).all()
        others = [corrupted(kind, severity, seed=seed) for seed in range(1, 6)]
        assert not all(np.allclose(result, other) for other in others)
    assert (before == X).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_highest_severity_changes_a_series_most(kind: str) -> None:
    low, high = (
        np.mean([np.abs(corrupted(kind, s, seed=seed) - X).mean() for seed in range(8)])
        for s in (1, 5)
    )
    assert high > 1.3 * low


def test_noise_and_drift_are_in_standard_deviations_of_the_channel() -> None:
    noise = (corrupted("gaussian_noise", 3, np.tile(X, 50)) - np.tile(X, 50)) / STD
    assert noise.std() == pytest.approx(0.4, rel=0.02)
    drift = (corrupted("drift", 5) - X) / STD
    assert drift[:, 0].tolist() == [0] * 4
    assert np.abs(drift[:, -1]).tolist() == pytest.approx([2] * 4)


def test_one_segment_of_all_channels_drops_out() -> None:
    result = corrupted("dropout", 3)
    (dropped,) = np.nonzero((result == MEAN).all(0))
    assert len(dropped) == 12  # a fifth
    assert (np.diff(dropped) == 1).all()
    assert (np.delete(result, dropped, 1) == np.delete(X, dropped, 1)).all()


@pytest.mark.parametrize(("severity", "count"), [(1, 1), (4, 2), (5, 3)])
def test_some_channels_but_never_all_are_missing(severity: int, count: int) -> None:
    result = corrupted("missing_channels", severity)
    assert (result == MEAN).all(1).sum() == count
    assert (result == X).all(1).sum() == 4 - count
    assert (corrupted("missing_channels", 5, X[:2]) == X[:2]).all(1).sum() == 1


def test_one_channel_cannot_be_missing() -> None:
    assert kinds_for(2) == list(KINDS)
    assert kinds_for(1) == [kind for kind in KINDS if kind != "missing_channels"]


def test_time_keeps_its_ends_and_its_order() -> None:
    line = np.arange(60.0)[None]
    for seed in range(20):
        warped = corrupted("time_warp", 5, line, seed)[0]
        assert (warped[0], warped[-1]) == pytest.approx((0, 59))
        assert (np.diff(warped) > 0).all()


def test_magnitude_is_warped_around_the_mean() -> None:
    even = np.repeat(MEAN, 60, axis=1)
    assert (corrupted("magnitude_warp", 5, even) == even).all()

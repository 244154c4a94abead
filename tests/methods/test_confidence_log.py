"""Sums on the device: each against numpy or scikit-learn, and over ranks as over batches."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.methods.confidence_log import ConfidenceLog, counted

Batch = tuple[Tensor, Tensor, dict[str, Tensor], Tensor]


def made(seed: int = 0, size: int = 200, students: tuple[str, ...] = ("a", "b", "c")) -> Batch:
    """confidence, weight, logits and labels of a batch."""
    generator = torch.Generator().manual_seed(seed)
    logits = {net: torch.randn(size, 4, generator=generator) for net in ("teacher", *students)}
    confidence = torch.rand(size, generator=generator)
    return confidence, confidence.square(), logits, torch.randint(4, (size,), generator=generator)


def log_of(*batches: Batch, threshold: float = 0.5, num_bins: int = 20) -> ConfidenceLog:
    log = ConfidenceLog(list(batches[0][2])[1:], num_bins=num_bins)
    for batch in batches:
        log.update(counted(*batch, threshold=threshold, num_bins=num_bins))
    return log


def joined(*batches: Batch) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """All samples of the batches; of the nets, the class they name."""
    confidence, weight, logits, labels = zip(*batches, strict=True)
    classes = {net: torch.cat([z[net] for z in logits]).argmax(1).numpy() for net in logits[0]}
    one = [torch.cat(values).numpy() for values in (confidence, weight, labels)]
    return one[0], one[1], classes, one[2]


def test_spread_and_share_kept_are_those_of_all_samples_of_the_epoch() -> None:
    batches = [made(0), made(1, size=30)]
    confidence, weight, _, _ = joined(*batches)
    found = {name: value.item() for name, value in log_of(*batches).compute().scalars.items()}
    for name, values in (("confidence", confidence), ("weight", weight)):
        assert found[f"{name}/mean"] == pytest.approx(values.mean(), rel=1e-5)
        assert found[f"{name}/min"] == values.min()
        assert found[f"{name}/max"] == values.max()
    assert found["confidence/share_kept"] == pytest.approx((confidence >= 0.5).mean())


def test_a_sample_at_the_threshold_is_kept_and_all_are_at_zero() -> None:
    batch = (torch.tensor([0.0, 0.35, 0.3499]), *made(size=3)[1:])
    for threshold, share in ((0.35, 1 / 3), (0.0, 1.0)):
        found = log_of(batch, threshold=threshold).compute().scalars["confidence/share_kept"]
        assert found.item() == pytest.approx(share)


def test_agreement_is_the_share_of_equal_classes_of_each_pair() -> None:
    batches = [made(0), made(1, size=30)]
    _, _, classes, _ = joined(*batches)
    found = log_of(*batches).compute().scalars
    pairs = ["teacher_a", "teacher_b", "teacher_c", "a_b", "a_c", "b_c"]
    assert [name for name in found if "agreement" in name] == [f"agreement/{p}" for p in pairs]
    for pair in pairs:
        one, other = pair.split("_")
        expected = accuracy_score(classes[one], classes[other])
        assert found[f"agreement/{pair}"].item() == pytest.approx(expected)


@pytest.mark.parametrize("num_bins", [1, 7, 20])
def test_the_histogram_is_numpys_and_adds_up_to_one(num_bins: int) -> None:
    batch = made()
    bins = log_of(batch, num_bins=num_bins).compute().bins
    counts, edges = np.histogram(batch[0].numpy(), bins=num_bins, range=(0, 1))
    assert [one["low"] for one in bins] == pytest.approx(edges[:-1])
    assert [one["high"] for one in bins] == pytest.approx(edges[1:])
    assert [one["share"] for one in bins] == pytest.approx(counts / 200)


def test_a_bin_holds_what_is_above_low_and_up_to_high_and_zero_is_in_the_first() -> None:
    batch = (torch.tensor([0.0, 0.25, 0.5, 1.0, 1.0]), *made(size=5)[1:])
    bins = log_of(batch, num_bins=4).compute().bins
    assert [one["share"] for one in bins] == [0.4, 0.2, 0.0, 0.4]


def test_accuracy_of_each_net_in_each_bin() -> None:
    batches = [made(0), made(1, size=30)]
    confidence, _, classes, labels = joined(*batches)
    for one in log_of(*batches, num_bins=5).compute().bins:
        inside = (one["low"] < confidence) & (confidence <= one["high"])
        for net, named in classes.items():
            expected = accuracy_score(labels[inside], named[inside])
            assert one[f"{net}_accuracy"] == pytest.approx(expected)


def test_an_empty_bin_has_a_share_of_zero_and_no_accuracy() -> None:
    batch = (torch.full((8,), 0.9), *made(size=8, students=("a", "b"))[1:])
    first, last = log_of(batch, num_bins=2).compute().bins
    assert first == {"low": 0.0, "high": 0.5, "share": 0.0, "teacher_accuracy": None,
                     "a_accuracy": None, "b_accuracy": None}  # fmt: skip
    assert last["share"] == 1
    assert None not in last.values()


def test_the_label_of_a_mixed_sample_is_its_heaviest_class() -> None:
    confidence, weight, logits, labels = made()
    mixed = 0.6 * F.one_hot(labels, 4) + 0.4 * F.one_hot((labels + 1) % 4, 4)
    found = log_of((confidence, weight, logits, mixed)).compute().bins
    assert found == log_of((confidence, weight, logits, labels)).compute().bins


def test_two_ranks_know_together_what_one_knows_of_all_samples() -> None:
    one, rank0, rank1 = log_of(made(0), made(1, size=30)), log_of(made(0)), log_of(made(1, size=30))
    rank0.merge_state(rank1)
    (scalars, bins), (expected, expected_bins) = rank0.compute(), one.compute()
    assert bins == expected_bins
    torch.testing.assert_close(scalars, expected)


def test_epochs_are_separate() -> None:
    log = log_of(made(0))
    log.compute()
    log.reset()
    log.update(counted(*made(1), threshold=0.5))
    (scalars, bins), (expected, expected_bins) = log.compute(), log_of(made(1)).compute()
    assert bins == expected_bins
    assert scalars == expected


def test_counts_do_not_stand_still_at_what_float32_can_tell_apart() -> None:
    log = log_of(made())
    log.counts += 2**25
    before = log.counts.clone()
    log.update(counted(*made(size=1), threshold=0.5))
    assert (log.counts - before)[0].sum() == 1


def test_a_batch_is_added_without_reading_the_device() -> None:
    log = ConfidenceLog(["a", "b", "c"]).to("meta")  # nothing there can be read
    confidence, weight, logits, labels = made()
    on_meta = {net: z.to("meta") for net, z in logits.items()}
    there = [value.to("meta") for value in (confidence, weight, labels)]
    log.update(counted(there[0], there[1], on_meta, there[2], threshold=0.5))
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        log.compute()

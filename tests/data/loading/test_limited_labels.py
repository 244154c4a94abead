import pytest
import torch
from helpers import compose

from kd_lightning.base.errors import UserError
from kd_lightning.data.digits import Digits
from kd_lightning.data.loading.limited_labels import few_per_class, with_noise
from kd_lightning.running.build import build_data

Y = torch.arange(90) % 3


def test_so_many_of_each_class_and_all_of_a_smaller_one():
    y = torch.cat([Y, torch.tensor([3, 3])])
    kept = few_per_class(y, 5, seed=0)
    assert torch.equal(kept, kept.unique())
    assert torch.bincount(y[kept]).tolist() == [5, 5, 5, 2]


def test_few_are_among_more_and_follow_the_seed():
    few, more = (set(few_per_class(Y, count, seed=0).tolist()) for count in (5, 20))
    assert few < more
    assert few != set(few_per_class(Y, 5, seed=1).tolist())


@pytest.mark.parametrize("share", [0.2, 0.4, 1.0])
def test_exactly_the_share_is_wrong_and_of_another_class(share):
    noisy = with_noise(Y, 3, share, seed=0)
    assert int((noisy != Y).sum()) == round(share * 90)
    assert noisy.unique().tolist() == [0, 1, 2]


def test_noise_is_uniform_over_the_other_classes():
    y = torch.zeros(30_000, dtype=torch.long)
    noisy = with_noise(y, 4, 0.6, seed=0)
    shares = torch.bincount(noisy, minlength=4) / len(y)
    torch.testing.assert_close(shares, torch.tensor([0.4, 0.2, 0.2, 0.2]), atol=0.01, rtol=0)


def test_more_noise_keeps_what_was_wrong_and_follows_the_seed():
    some, more = (with_noise(Y, 3, share, seed=0) for share in (0.2, 0.4))
    wrong = some != Y
    assert torch.equal(more[wrong], some[wrong])
    assert not torch.equal(some, with_noise(Y, 3, 0.2, seed=1))
    assert torch.equal(with_noise(Y, 3, 0.0, seed=0), Y)


def data_of(*words):
    return build_data(compose("data=digits", *words))


def test_few_labels_are_trains_alone():
    plain, few = data_of(), data_of("data.train_per_class=20")
    assert len(few.parts["train"]) + len(few.parts["val"]) == 200
    assert torch.equal(few.parts["test"].x, plain.parts["test"].x)
    assert few.protocol.startswith("train: 20 samples of each class; val: ")
    assert few.fingerprint != plain.fingerprint


def test_noise_is_in_train_and_in_the_val_cut_from_it_and_not_in_test():
    plain = data_of()
    noisy = data_of("data.label_noise=0.4", "data.split_seed=0")
    right = {row.numpy().tobytes(): y for row, y in zip(
        torch.cat([plain.parts[p].x for p in ("train", "val")]),
        torch.cat([plain.parts[p].y for p in ("train", "val")]).tolist(), strict=True)}  # fmt: skip
    for part in ("train", "val"):
        samples = noisy.parts[part]
        said = torch.tensor([right[row.numpy().tobytes()] for row in samples.x])
        assert 0.2 < (said != samples.y).float().mean() < 0.6
    assert torch.equal(noisy.parts["test"].y, plain.parts["test"].y)
    assert "575 of train's 1438 labels made wrong (split_seed 0)" in noisy.protocol


def test_a_class_with_fewer_samples_than_asked_for_is_said():
    assert data_of("data.train_per_class=1000").protocol.startswith("train: at most 1000 samples")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"train_per_class": 0}, r"data\.train_per_class must be >= 1 or null, got 0"),
        ({"label_noise": 1.0}, r"data\.label_noise must be in \[0, 1\), got 1\.0"),
        ({"label_noise": -0.1}, r"data\.label_noise must be in \[0, 1\), got -0\.1"),
    ],
)
def test_what_cannot_be_is_refused(setting, said):
    with pytest.raises(UserError, match=said):
        Digits(batch_size=8, **setting)

import pytest
import torch
from helpers import compose

from kd_lightning.base.errors import UserError
from kd_lightning.data.digits import Digits
from kd_lightning.data.loading.limited_labels import add_label_noise, subsample_per_class
from kd_lightning.running.build import build_data

Y = torch.arange(90) % 3


def test_each_class_has_the_count_or_all_of_its_samples():
    y = torch.cat([Y, torch.tensor([3, 3])])
    kept = subsample_per_class(y, 5, seed=0)
    assert torch.equal(kept, kept.unique())
    assert torch.bincount(y[kept]).tolist() == [5, 5, 5, 2]


def test_a_smaller_subset_is_part_of_a_larger_one_and_depends_on_the_seed():
    few, more = (set(subsample_per_class(Y, count, seed=0).tolist()) for count in (5, 20))
    assert few < more
    assert few != set(subsample_per_class(Y, 5, seed=1).tolist())


@pytest.mark.parametrize("share", [0.2, 0.4, 1.0])
def test_exactly_the_share_of_labels_is_wrong(share):
    noisy = add_label_noise(Y, 3, share, seed=0)
    assert int((noisy != Y).sum()) == round(share * 90)
    assert noisy.unique().tolist() == [0, 1, 2]


def test_noise_is_uniform_over_the_other_classes():
    y = torch.zeros(30_000, dtype=torch.long)
    noisy = add_label_noise(y, 4, 0.6, seed=0)
    shares = torch.bincount(noisy, minlength=4) / len(y)
    torch.testing.assert_close(shares, torch.tensor([0.4, 0.2, 0.2, 0.2]), atol=0.01, rtol=0)


def test_wrong_labels_stay_wrong_with_more_noise_and_depend_on_the_seed():
    some, more = (add_label_noise(Y, 3, share, seed=0) for share in (0.2, 0.4))
    wrong = some != Y
    assert torch.equal(more[wrong], some[wrong])
    assert not torch.equal(some, add_label_noise(Y, 3, 0.2, seed=1))
    assert torch.equal(add_label_noise(Y, 3, 0.0, seed=0), Y)


def data_of(*words):
    return build_data(compose("data=digits", *words))


def test_train_per_class_changes_only_train_and_val():
    plain, few = data_of(), data_of("data.train_per_class=20")
    assert len(few.parts["train"]) + len(few.parts["val"]) == 200
    assert torch.equal(few.parts["test"].x, plain.parts["test"].x)
    assert few.protocol.startswith("train: 20 samples of each class; val: ")
    assert few.fingerprint != plain.fingerprint


def share_of_wrong_labels(data, part):
    plain = data_of()
    right = {row.numpy().tobytes(): y for row, y in zip(
        torch.cat([plain.parts[p].x for p in ("train", "val")]),
        torch.cat([plain.parts[p].y for p in ("train", "val")]).tolist(), strict=True)}  # fmt: skip
    samples = data.parts[part]
    correct = torch.tensor([right[row.numpy().tobytes()] for row in samples.x])
    return float((correct != samples.y).float().mean())


@pytest.mark.parametrize("noisy_val", ["false", "true"])
def test_each_amount_of_noise_has_the_same_val(noisy_val):
    vals = [
        data_of(f"data.label_noise={share}", f"data.noisy_val={noisy_val}").parts["val"].x
        for share in (0.0, 0.2, 0.4)
    ]
    assert torch.equal(vals[0], vals[1])
    assert torch.equal(vals[0], vals[2])


def test_noise_is_in_train_alone():
    noisy = data_of("data.label_noise=0.4")
    assert 0.2 < share_of_wrong_labels(noisy, "train") < 0.6
    assert share_of_wrong_labels(noisy, "val") == 0
    assert torch.equal(noisy.parts["test"].y, data_of().parts["test"].y)
    assert (
        "575 of train's 1438 labels made wrong (split_seed 0), before val is cut from it, whose "
        "labels are right; val: 10% of train"
    ) in noisy.protocol


def test_a_noisy_val_has_as_many_wrong_labels_and_changes_nothing_else():
    noise = "data.label_noise=0.4"
    clean, noisy = data_of(noise), data_of(noise, "data.noisy_val=true")
    assert 0.2 < share_of_wrong_labels(noisy, "val") < 0.6
    assert torch.equal(noisy.parts["val"].x, clean.parts["val"].x)
    for part in ("train", "test"):
        assert torch.equal(noisy.parts[part].x, clean.parts[part].x)
        assert torch.equal(noisy.parts[part].y, clean.parts[part].y)
    assert "(split_seed 0), before val is cut from it; val: " in noisy.protocol


def test_a_noisy_val_without_noise_is_right():
    data = data_of("data.noisy_val=true")
    assert share_of_wrong_labels(data, "val") == 0
    assert not data.val_has_wrong_labels


def test_the_protocol_mentions_classes_with_fewer_samples():
    assert data_of("data.train_per_class=1000").protocol.startswith("train: at most 1000 samples")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"train_per_class": 0}, r"data\.train_per_class must be >= 1 or null, got 0"),
        ({"label_noise": 1.0}, r"data\.label_noise must be in \[0, 1\), got 1\.0"),
        ({"label_noise": -0.1}, r"data\.label_noise must be in \[0, 1\), got -0\.1"),
    ],
)
def test_values_out_of_range_are_refused(setting, message):
    with pytest.raises(UserError, match=message):
        Digits(batch_size=8, **setting)

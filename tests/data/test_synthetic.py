import pytest
import torch
from sklearn.linear_model import RidgeClassifier

from kd_lightning.base.errors import UserError
from kd_lightning.data.synthetic import Synthetic

SMALL = {
    "kind": "image",
    "num_classes": 3,
    "channels": 2,
    "size": 8,
    "num_train": 30,
    "num_test": 12,
    "noise": 1.0,
    "batch_size": 4,
}


def made(**kwargs):
    data = Synthetic(**{**SMALL, **kwargs})
    data.setup()
    return data


@pytest.mark.parametrize(
    ("kind", "shape", "dtype"),
    [("image", (2, 8, 8), torch.uint8), ("series", (2, 8), torch.float32)],
)
def test_facts(kind, shape, dtype):
    data = made(kind=kind)
    x = data.parts["train"].x
    assert x.shape[1:] == shape
    assert x.dtype == dtype
    assert (data.num_classes, data.channels, data.size) == (3, 2, 8)
    values = x.float().transpose(0, 1).flatten(1) / (255 if kind == "image" else 1)
    assert data.mean == pytest.approx(values.mean(1).tolist(), abs=1e-5)
    assert data.std == pytest.approx(values.std(1).tolist(), rel=1e-5)
    assert "drawn as train is (27 / 3 / 12 samples)" in data.protocol


def test_the_content_depends_only_on_data_seed():
    assert made(seed=1).fingerprint == made().fingerprint
    assert made(data_seed=1).fingerprint != made().fingerprint


def test_the_test_part_does_not_depend_on_num_train():
    assert torch.equal(made(num_train=60).parts["test"].x, made().parts["test"].x)


def test_train_and_test_are_different_draws():
    data = made(num_train=12, val_fraction=0)
    assert not torch.equal(data.parts["train"].x, data.parts["test"].x)


def test_without_noise_a_class_is_one_shifted_pattern():
    def of_one_class(data_seed):
        test = made(kind="series", size=32, noise=0.0, data_seed=data_seed).parts["test"]
        return test.x[test.y == 0]

    x = of_one_class(0)
    assert not torch.equal(x, x[:1].expand_as(x))
    values = x.sort().values  # a shift does not change them
    assert torch.equal(values, values[:1].expand_as(x))
    assert not torch.equal(values, of_one_class(1).sort().values)


def test_classes_have_equally_many_samples():
    assert torch.bincount(made().parts["test"].y).tolist() == [4, 4, 4]


@pytest.mark.parametrize(("kind", "size", "noise"), [("image", 12, 3.0), ("series", 32, 3.0)])
def test_classes_can_be_learnt_and_noise_lowers_the_accuracy(kind, size, noise):
    def accuracy(noise):
        data = made(kind=kind, size=size, noise=noise, num_train=300, num_test=300)
        (x, y), (test_x, test_y) = (
            (part.x.flatten(1).double().numpy(), part.y.numpy())
            for part in (data.parts["train"], data.parts["test"])
        )
        return RidgeClassifier().fit(x, y).score(test_x, test_y)

    assert 0.5 < accuracy(noise) < 1
    assert accuracy(20.0) < accuracy(noise) < accuracy(0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "images"}, r"unknown kind of data 'images': did you mean image.*data.kind"),
        ({"num_classes": 1}, r"data.num_classes must be >= 2, got 1"),
        ({"channels": 0}, r"data.channels must be >= 1, got 0"),
        ({"size": 3}, r"data.size must be >= 4, got 3"),
        ({"num_train": 2}, r"data.num_train must be at least data.num_classes=3, got 2"),
        ({"num_test": 0}, r"data.num_test must be >= 1, got 0"),
        ({"noise": -1.0}, r"data.noise must be >= 0, got -1.0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Synthetic(**{**SMALL, **arguments})

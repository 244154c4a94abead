import pytest
import torch
from torch import Tensor

from kd_lightning.teachers.permuted_classes import best_order, find_class_order


def of_a_teacher(
    accuracy: float, samples: int, classes: int, *, seed: int, order: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Its outputs and the labels; ``order``: for each output the data's class."""
    generator = torch.Generator().manual_seed(seed)
    labels, random = torch.randint(classes, (2, samples), generator=generator)
    is_known = torch.rand(samples, generator=generator) < accuracy
    predicted = torch.where(is_known, labels, random)
    return predicted if order is None else order.argsort()[predicted], labels


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("classes", "samples", "accuracy"), [(2, 90, 0.7), (10, 143, 0.6), (100, 1000, 0.7)]
)
def test_a_permutation_is_found(classes: int, samples: int, accuracy: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(classes, generator=generator) if classes > 2 else torch.tensor([1, 0])
    predicted, labels = of_a_teacher(accuracy, samples, classes, seed=seed, order=order)
    found = find_class_order(predicted, labels, classes)
    assert found is not None
    right = (order[predicted] == labels).double().mean().item()
    assert found.accuracy == pytest.approx(right, abs=0.15)
    if classes < 100:  # with ten samples a class, a few may be confused
        assert found.order == order.tolist()


def test_two_swapped_classes_are_found() -> None:
    order = torch.tensor([1, 0, *range(2, 10)])
    predicted, labels = of_a_teacher(0.95, 300, 10, seed=0, order=order)
    assert find_class_order(predicted, labels, 10).order == order.tolist()


def test_random_predictions_of_many_classes_have_no_order() -> None:
    for seed in range(100):
        predicted, labels = of_a_teacher(0, 200, 100, seed=seed)
        in_sample = best_order(predicted, labels, 100)[predicted] == labels
        assert in_sample.double().mean() > 0.2  # which is why it is tested on other samples
        assert find_class_order(predicted, labels, 100) is None


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("accuracy", [0, 0.3, 0.95, 1])
def test_a_teacher_with_its_classes_in_order_needs_no_other(classes: int, accuracy: float) -> None:
    for seed in range(20):
        assert find_class_order(*of_a_teacher(accuracy, 200, classes, seed=seed), classes) is None


def test_a_teacher_that_mixes_most_classes_up_needs_no_other_order() -> None:
    # all of a net's images look like two of its classes: another order can serve these two only
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (400,), generator=generator)
    predicted = (labels > 4).long() + 3
    assert find_class_order(predicted, labels, 10) is None


def test_outputs_without_samples_keep_their_places() -> None:
    order = best_order(torch.tensor([0, 1]), torch.tensor([1, 0]), 5)
    assert order.tolist() == [1, 0, 2, 3, 4]


def test_one_sample_says_nothing() -> None:
    assert find_class_order(torch.tensor([1]), torch.tensor([0]), 2) is None

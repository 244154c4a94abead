import pytest
import torch

from kd_lightning.data.loading.batches import Samples
from kd_lightning.teachers.significance import Predictions, is_clearly_better


def predictions(predicted, labels, *, is_random: bool = False) -> Predictions:
    predicted, labels = torch.as_tensor(predicted), torch.as_tensor(labels)
    samples = Samples(torch.zeros(len(labels), 1), labels)
    return Predictions("val", samples, predicted, labels, is_random)


def of_pairs(*counts: tuple[int, int, int]) -> Predictions:
    """Predictions of (predicted class, label, number of samples)."""
    pairs = torch.tensor([pair[:2] for pair in counts]).repeat_interleave(
        torch.tensor([count for *_, count in counts]), 0
    )
    return predictions(pairs[:, 0], pairs[:, 1])


def test_p_value_and_kappa_are_their_formulas() -> None:
    eight_of_ten = of_pairs((0, 0, 4), (1, 0, 1), (1, 1, 4), (0, 1, 1))
    assert eight_of_ten.accuracy == 0.8
    assert eight_of_ten.most_frequent_class == 0.5
    assert eight_of_ten.p_value == pytest.approx((45 + 10 + 1) / 1024)
    assert eight_of_ten.kappa == pytest.approx((0.8 - 0.5) / 0.5)


def test_the_record_and_the_words_have_the_same_numbers() -> None:
    some = predictions([0, 1, 1], [0, 1, 0], is_random=True)
    assert some.record() == {"accuracy": 2 / 3, "correct": 2, "samples": 3,
                             "most_frequent_class": 2 / 3, "p_value": some.p_value,
                             "kappa": some.kappa, "order_p_value": None}  # fmt: skip
    assert some.in_words() == "66.7 % on val (2 of 3 random samples)"


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_random_predictions_are_near_chance(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    near = [
        predictions(*torch.randint(classes, (2, 200), generator=generator)).is_near_chance
        for _ in range(200)
    ]
    assert sum(near) >= 196  # alpha is 0.01


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_predictions_that_are_often_right_are_not_near_chance(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    for _ in range(50):
        random, labels = torch.randint(classes, (2, 200), generator=generator)
        is_known = torch.rand(200, generator=generator) < 0.6
        assert not predictions(torch.where(is_known, labels, random), labels).is_near_chance


def of_clusters(classes: int, generator: torch.Generator) -> Predictions:
    """Of a net that has learnt nothing, and answers nearly alike for all samples of a class."""
    answers = torch.randint(classes, (classes,), generator=generator)
    labels = torch.arange(classes).repeat_interleave(20)
    changed = torch.rand(len(labels), generator=generator) < 0.3
    random = torch.randint(classes, (len(labels),), generator=generator)
    return predictions(torch.where(changed, random, answers[labels]), labels)


def test_a_random_net_with_classes_that_look_alike_is_like_a_random_order() -> None:
    generator = torch.Generator().manual_seed(0)
    nets = [of_clusters(10, generator) for _ in range(100)]
    assert sum(net.p_value < 0.01 for net in nets) > 20  # the binomial test is misled
    assert sum(net.is_like_a_random_order for net in nets) >= 97


@pytest.mark.parametrize("classes", [6, 10, 100])
def test_a_weak_teacher_is_not_like_a_random_order(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    random, labels = torch.randint(classes, (2, 500), generator=generator)
    is_known = torch.rand(500, generator=generator) < 0.3
    weak = predictions(torch.where(is_known, labels, random), labels)
    assert not weak.is_like_a_random_order


def test_the_p_value_of_an_order_is_the_share_of_orders() -> None:
    perfect = of_pairs(*((i, i, 10) for i in range(6)))
    assert perfect.order_p_value == pytest.approx(1 / 720, abs=0.002)
    assert of_pairs(*((i, i, 10) for i in range(5))).order_p_value is None
    assert of_pairs(*((0, i, 10) for i in range(6))).order_p_value == 1.0  # any order is as good


def test_one_large_class_does_not_hide_a_good_order() -> None:
    rare = [(i, i, 4) for i in range(1, 8)] + [(0, i, 1) for i in range(1, 8)]
    assert not of_pairs((0, 0, 600), *rare).is_like_a_random_order


def test_always_the_most_frequent_class_is_chance() -> None:
    assert of_pairs((0, 0, 95), (0, 1, 5)).is_near_chance
    assert of_pairs((0, 0, 950), (0, 1, 50)).is_near_chance


def test_a_good_teacher_of_a_rare_class_is_not_near_chance() -> None:
    # 98 % where 95 % is the most frequent class: no significant difference, but it finds the rest
    good = of_pairs((0, 0, 94), (1, 0, 1), (1, 1, 4), (0, 1, 1))
    assert good.p_value > 0.01
    assert not good.is_near_chance


def test_a_slight_agreement_below_the_most_frequent_class_is_near_chance() -> None:
    slight = of_pairs((0, 0, 300), (1, 0, 400), (1, 1, 180), (0, 1, 120))
    assert slight.accuracy < slight.most_frequent_class
    assert 0 < slight.kappa < 0.2
    assert slight.is_near_chance


def test_samples_of_one_class_say_nothing() -> None:
    assert not of_pairs((0, 0, 20)).is_near_chance


def test_clearly_better_needs_five_points_and_significance() -> None:
    def is_better(gained: int, lost: int, samples: int) -> bool:
        changed = torch.arange(samples) < gained
        before = (torch.arange(samples) >= gained) & (torch.arange(samples) < gained + lost)
        return is_clearly_better(changed, before)

    assert is_better(11, 0, 200)
    assert not is_better(10, 0, 200)  # five points, p = 0.002
    assert not is_better(40, 1, 1000)  # p < 0.001, 3.9 points
    assert not is_better(60, 49, 200)  # five points, p = 0.3
    assert not is_better(0, 40, 200)

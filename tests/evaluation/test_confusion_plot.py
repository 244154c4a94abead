import io

import pytest
import torch

from kd_lightning.evaluation.confusion_plot import MOST_WITH_NAMES, MOST_WITH_NUMBERS, draw


def drawn(count: int, names: list[str] | None = None):
    matrix = torch.ones(count, count, dtype=torch.int64) + 8 * torch.eye(count, dtype=torch.int64)
    names = names or [f"class {number}" for number in range(count)]
    figure = draw(matrix, names, "a student")
    return figure, figure.axes[0]


def test_few_classes_are_named_and_counted() -> None:
    _, ax = drawn(3)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["class 0", "class 1", "class 2"]
    assert sorted(text.get_text() for text in ax.texts) == ["1"] * 6 + ["9"] * 3


@pytest.mark.parametrize("count", [MOST_WITH_NUMBERS + 1, MOST_WITH_NAMES])
def test_more_classes_are_only_named(count: int) -> None:
    _, ax = drawn(count)
    assert len(ax.get_yticklabels()) == count
    assert not ax.texts


def test_very_many_classes_give_no_larger_picture() -> None:
    _, ax = drawn(MOST_WITH_NAMES + 1)
    assert len(ax.get_yticks()) < MOST_WITH_NAMES
    assert list(drawn(900)[0].get_size_inches()) == list(drawn(500)[0].get_size_inches())


def test_the_colour_is_the_share_of_the_class_also_of_one_without_samples() -> None:
    matrix = torch.tensor([[3, 1], [0, 0]])
    (image,) = draw(matrix, ["a", "b"], "").axes[0].images
    assert image.get_array().tolist() == [[0.75, 0.25], [0, 0]]


def test_any_name_can_be_drawn() -> None:
    figure, ax = drawn(2, ["$x_", "a name that is longer than the picture should be"])
    figure.savefig(file := io.BytesIO(), format="png")
    assert file.getvalue().startswith(b"\x89PNG")
    assert len(ax.get_xticklabels()[1].get_text()) == 24

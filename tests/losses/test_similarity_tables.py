"""Similarity tables and the rows that are kept, on tables that are worked out by hand."""

import pytest
import torch
from torch.nn import functional as F

from kd_lightning.losses.similarity_tables import cosine_table, kept_rows, mean_of_kept

# error levels of column 0: 0, 1, 2, 1; the last row is closer to its highest score than the second
SCORES = torch.tensor([[3.0, 1, 2], [1, 3, 0], [0, 1, 2], [1, 2, 0]])
FIRST = torch.zeros(4, dtype=torch.long)


def test_a_table_has_the_cosine_of_each_pair() -> None:
    a, b = torch.tensor([[1.0, 0], [3, 3]]), torch.tensor([[2.0, 0], [0, -1], [1, 1]])
    half = 0.5**0.5
    expected = torch.tensor([[1, 0, half], [half, -half, 1]])
    torch.testing.assert_close(cosine_table(a, b), expected)


def test_a_table_keeps_the_order_of_its_rows_and_columns_and_knows_no_lengths() -> None:
    a, b = torch.randn(6, 5), torch.randn(4, 5)
    table = cosine_table(a, b)
    assert table.shape == (6, 4)
    assert (table.abs() <= 1 + 1e-6).all()
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(cosine_table(a, b[order]), table[:, order])
    torch.testing.assert_close(cosine_table(7 * a, 0.1 * b), table)


def test_a_table_is_in_float32_under_autocast_and_zeros_have_no_angle() -> None:
    a, b = torch.randn(3, 4, requires_grad=True), torch.zeros(2, 4, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        table = cosine_table(a.bfloat16(), b.bfloat16())
    assert table.dtype == torch.float32
    assert torch.equal(table, torch.zeros(3, 2))
    table.sum().backward()
    assert torch.equal(b.grad, torch.zeros(2, 4))
    assert a.grad.isfinite().all()


@pytest.mark.parametrize(
    ("ratio", "kept"),
    [(0, [1, 0, 0, 0]), (0.3, [1, 0, 0, 0]), (0.34, [1, 0, 0, 1]), (0.7, [1, 1, 0, 1]),
     (1, [1, 1, 1, 1])],
)  # fmt: skip
def test_right_rows_are_kept_and_then_those_of_the_lowest_levels(
    ratio: float, kept: list[int]
) -> None:
    found = kept_rows(SCORES, FIRST, ratio)
    assert found.tolist() == [bool(k) for k in kept]
    order = torch.tensor([3, 1, 0, 2])  # the order of the rows does not matter
    assert torch.equal(kept_rows(SCORES[order], FIRST, ratio), found[order])


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.75, 1.0])
def test_as_many_rows_are_kept_as_the_ratio_says(ratio: float) -> None:
    scores, true = torch.randn(40, 7), torch.arange(40) % 7
    right = scores.argmax(1) == true
    kept = kept_rows(scores, true, ratio)
    assert (kept | ~right).all()
    assert kept.sum() == right.sum() + int(ratio * (40 - right.sum().item()))
    ranks = scores.argsort(1, descending=True).argsort(1)[torch.arange(40), true]
    if 0 < ratio < 1:
        assert ranks[kept].max() <= ranks[~kept].min()


def test_the_mean_is_over_the_kept_rows_alone() -> None:
    values = torch.tensor([1.0, torch.inf, 5.0], requires_grad=True)
    mean = mean_of_kept(values, torch.tensor([True, False, True]))
    assert mean == 3
    mean.backward()
    assert torch.equal(values.grad, torch.tensor([0.5, 0, 0.5]))


def test_no_kept_row_gives_zero_with_a_graph() -> None:
    wrong = F.one_hot(torch.tensor([1, 2, 1]), 3).float()
    kept = kept_rows(wrong, torch.zeros(3, dtype=torch.long), 0.0)
    values = torch.randn(3, requires_grad=True)
    mean = mean_of_kept(values, kept)
    assert mean == 0
    mean.backward()
    assert torch.equal(values.grad, torch.zeros(3))

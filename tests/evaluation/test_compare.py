import pytest
import torch

from kd_lightning.base.proportions import mcnemar_p, paired_interval
from kd_lightning.evaluation.compare import comparison, section


def right(*wrong: int) -> torch.Tensor:
    """20 samples of which these are wrong."""
    mask = torch.ones(20, dtype=torch.bool)
    mask[list(wrong)] = False
    return mask


ROWS = comparison({"a": right(0, 1, 2, 3, 4, 5), "b": right(0, 6), "c": right(0, 1, 2, 3, 4, 5)})


def test_each_student_is_compared_with_the_first_on_the_same_samples() -> None:
    assert [(row["student"], row["compared_with"]) for row in ROWS] == [("b", "a"), ("c", "a")]
    b, c = ROWS
    assert (b["gained"], b["lost"], b["difference"]) == (5, 1, 4 / 20)
    assert (b["interval"], b["p"]) == (paired_interval(5, 1, 20), mcnemar_p(5, 1))
    assert (c["difference"], c["p"]) == (0, 1)


def test_p_is_corrected_for_the_number_of_comparisons() -> None:
    assert ROWS[0]["p_holm"] == pytest.approx(2 * ROWS[0]["p"])
    assert comparison({"a": right(), "b": right(1, 2)})[0]["p_holm"] == 0.5


def test_the_table_has_the_correction_only_where_there_is_one() -> None:
    table = section(ROWS).table()
    assert table.rows[0][0] == "b"
    assert table.rows[0][3] == "+20.00"
    assert table.heads[-1] == "p, Holm"
    assert section(ROWS[:1]).table().heads[-1] == "p"

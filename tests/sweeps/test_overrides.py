"""Overrides as text."""

import pytest

from kd_lightning.sweeps.overrides import fixed_words, format_override, last_wins, value_of


@pytest.mark.parametrize(
    "value",
    [
        0,
        1.5,
        True,
        None,
        "kd",
        "a b",
        "a=b",
        "it's",
        [1, "x"],
        {"a": 0.1},
        "1",
        "",
        "[3]",
        "a,b",
        "Müller",
    ],
)
def test_a_formatted_value_is_read_back(value) -> None:
    assert value_of(format_override("key", value)) == value


def test_the_last_of_two_equal_keys_wins() -> None:
    assert last_wins(["a=1", "+b=2", "a=3", "b=4"]) == ("a=3", "b=4")


def test_fixed_words_have_a_single_value() -> None:
    assert fixed_words(["a=1", "b=1,2", "c='1,2'"]) == ["a=1", "c='1,2'"]
    assert fixed_words(["a=1", "+b=2", "b=1,2"]) == ["a=1"]  # the last one counts
    assert fixed_words(["b=1,2", "b=2"]) == ["b=2"]

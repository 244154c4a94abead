"""Values are of the type and in the range that an annotation declares, in a run and in Python."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import Count, Counts, NotNegative, Positive, Range, Share
from kd_lightning.config.values import CheckedNumbers, check, checked, describe, matches

BUILT = OmegaConf.create({"_target_": "torch.nn.Identity"})


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, [0, -1], [10**13, 0.5, 1.0, "1", None, True, [1]]),
        (float, [0.5, 1, 1e12, -1e-18], [math.nan, math.inf, 1e13, 1e-19, "1", None, False, [1.0]]),
        (bool, [True, False], [0, 1, "true", None]),
        (str, ["", "a"], [1, None, ["a"]]),
        (Path, ["a"], [1, None]),
        (str | None, ["a", None], [1, ["a"]]),
        (float | Literal["auto"], [1, 0.5, "auto"], ["wide", None]),
        (Literal["a", "b"] | None, ["a", "b", None], ["c", 1]),
        (Sequence[int], [[], [1, 2]], [1, "ab", [0.5], [None]]),
        (list, [[], [1, "a"]], [1, {"a": 1}]),
        (tuple[float, float], [[0.1, 1]], [[0.1], [0.1, 0.2, 0.3], ["a", "b"], 0.1]),
        (tuple[int, ...], [[], [1, 2, 3]], [["a"]]),
        (Mapping[str, float] | None, [None, {}, {"a": 1}], [{"a": "x"}, [1], 1]),
        (dict, [{}, {"a": "x"}], [[1]]),
        (nn.Module, [BUILT], ["mlp", None, {"widths": [1]}]),
        (Callable[..., torch.Tensor], [BUILT], ["entropy", None]),
        (Mapping[str, nn.Module], [{"a": BUILT}], [{"a": "mlp"}]),
        (float | torch.Tensor, [0.5], ["x"]),
        (Any, [1, "a", None, [1]], []),
    ],
)
def test_values_match_their_annotations(annotation: Any, good: list, bad: list) -> None:
    node = OmegaConf.create({"good": good, "bad": bad})
    assert [value for value in node.good if not matches(value, annotation)] == []
    assert [value for value in node.bad if matches(value, annotation)] == []


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "a whole number"),
        (int | float | None, "a number or null"),
        (float | torch.Tensor, "a number"),
        (float | Literal["auto"], "a number or auto"),
        (Literal["a", "b"], "a or b"),
        (Path | None, "text or null"),
        (Sequence[int], "a list, each a whole number"),
        (Mapping[str, float] | None, "keys and values, each a number or null"),
        (nn.Module, ""),
        (Callable, ""),
    ],
)
def test_annotations_are_described_in_words(annotation: Any, words: str) -> None:
    assert describe(annotation) == words


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (Positive, [1, 0.5], [0, -1, math.nan, math.inf, 1e308, 1e-308]),
        (Count | None, [1, None], [0, 1.5, 10**13]),
        (Annotated[float, Range(limit=math.inf)], [math.inf, 1e300], [math.nan]),
        (Positive | Literal["auto"], [1, "auto"], [0, "wide"]),
        (Sequence[Share], [[], [0, 1]], [[0.5, 2]]),
        (Mapping[str, Positive] | None, [None, {"a": 1}], [{"a": 0}]),
        (Count | Share, [0.5, 3], [1.5, -1]),
        (Counts, [[1], [2, 3]], [[], [0]]),
    ],
)
def test_numbers_are_in_their_declared_range(annotation: Any, good: list, bad: list) -> None:
    for node in ({"good": good, "bad": bad}, OmegaConf.create({"good": good, "bad": bad})):
        assert [value for value in node["good"] if not matches(value, annotation)] == []
        assert [value for value in node["bad"] if matches(value, annotation)] == []


@pytest.mark.parametrize(
    ("annotation", "value", "sentence"),
    [
        (float, math.nan, "a.b must be finite, got nan"),
        (float, 1e308, "a.b must be <= 1e+12 in size, got 1e+308"),
        (float, 1e-308, "a.b must be >= 1e-18 in size, got 1e-308"),
        (Positive, 0, "a.b must be > 0, got 0"),
        (Positive, "warm", "a.b must be a number > 0, got warm"),
        (Positive, 1e308, "a.b must be > 0 and <= 1e+12, got 1e+308"),
        (Count | None, 0, "a.b must be >= 1 or null, got 0"),
        (Count | None, 0.5, "a.b must be a whole number >= 1 or null, got 0.5"),
        (Share, 2, "a.b must be in [0, 1], got 2"),
        (Mapping[str, Positive] | None, {"x": 1, "y": -1}, "a.b.y must be > 0, got -1"),
        (Sequence[Share], [0, 3], "a.b[1] must be in [0, 1], got 3"),
        (Counts, [], "a.b must be a list of length >= 1, each a whole number >= 1, got []"),
        (
            tuple[Count, Count],
            [1],
            "a.b must be a list of length 2, each a whole number >= 1, got [1]",
        ),
        (Sequence[Share], ["x"], "a.b must be a list, each a number in [0, 1], got ['x']"),
    ],
)
def test_the_sentence_says_what_is_wrong(annotation: Any, value: Any, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        check(value, annotation, "a.b")
    assert str(caught.value).startswith(sentence)


class Base(CheckedNumbers):
    section = "method"

    def __init__(self, *, temperature: Positive = 4.0, net: object = None) -> None:
        self.temperature = temperature


class Derived(Base):
    def __init__(self, *, weights: Mapping[str, NotNegative] | None = None, **base: Any) -> None:
        super().__init__(**base)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temperature": 0}, "method.temperature must be > 0, got 0"),
        ({"weights": {"a": -1.0}}, "method.weights.a must be >= 0, got -1.0"),
    ],
)
def test_a_constructor_says_the_same_in_python(options: dict, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        Derived(**options)
    assert str(caught.value) == sentence


def test_python_may_give_what_yaml_cannot_say() -> None:
    temperature = torch.tensor(2.0)
    assert Derived(temperature=temperature, net=nn.Identity()).temperature is temperature


def test_a_function_is_checked_too() -> None:
    @checked("scheduler")
    def cosine(steps: int, *, warmup: Share = 0.0) -> float:
        return warmup

    assert cosine(3, warmup=0.5) == 0.5
    with pytest.raises(UserError, match=r"^scheduler.warmup must be in \[0, 1\], got 2$"):
        cosine(3, warmup=2)

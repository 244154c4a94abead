"""Model soups: of stand-ins for nets, and of trained nets."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from helpers import TINY, compose, net, of_method
from torch import nn

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.evaluation.metrics import classification_metrics, predict
from kd_lightning.evaluation.soups import average_nets, build_soups, greedy_soup
from kd_lightning.models.averages import check_alike
from kd_lightning.models.weights import load_weights
from kd_lightning.running.build import build_data
from kd_lightning.teachers.sources import load_student


def no_refresh(net: nn.Module) -> None:
    raise AssertionError


@pytest.mark.parametrize(
    ("scores", "members"),
    [
        ({"a": 0.5, "ab": 0.6, "abc": 0.7}, "abc"),  # each net raises the score
        ({"a": 0.5, "ab": 0.4, "ac": 0.6}, "ac"),  # a net that lowers the score is left out
        ({"a": 0.5, "ab": 0.5, "abc": 0.5}, "abc"),  # a net that keeps the score equal is added
        ({"a": 0.5, "ab": 0.4, "ac": 0.49}, "a"),  # never worse than the best net
        ({"a": 0.5, "ab": 0.9, "abc": 0.8}, "ab"),  # compared with the current soup
    ],
)
def test_the_greedy_soup_by_hand(scores: dict[str, float], members: str) -> None:
    soup = greedy_soup(list("abc"), "".join, scores.__getitem__)
    assert (soup.net, "".join(soup.members), soup.accuracy) == (members, members, scores[members])


def test_the_greedy_soup_tries_the_best_net_first_and_keeps_the_order_of_equals() -> None:
    nets = {key: net() for key in "abcd"}
    accuracies = {"a": 0.1, "b": 0.3, "c": 0.2, "d": 0.3}
    soups = build_soups(nets, accuracies, refresh=lambda soup: None, score=lambda soup: 1.0)
    assert soups["greedy_soup"].members == ("b", "d", "c", "a")
    assert soups["uniform_soup"].members == ("a", "b", "c", "d")


def test_without_a_score_there_is_no_greedy_soup() -> None:
    nets = {key: net() for key in "ab"}
    soups = build_soups(nets, {}, refresh=lambda soup: None, score=None)
    assert list(soups) == ["uniform_soup"]
    assert soups["uniform_soup"].accuracy is None


def test_a_soup_is_the_mean_of_the_weights_and_does_not_change_its_members() -> None:
    nets = [net(), net(), net()]
    before = [{n: v.clone() for n, v in member.state_dict().items()} for member in nets]
    refreshed = []
    soup = average_nets(nets, refreshed.append)
    assert refreshed == [soup]
    for name, value in soup.state_dict().items():
        mean = torch.stack([state[name] for state in before]).mean(0)
        torch.testing.assert_close(value, mean)
    for member, state in zip(nets, before, strict=True):
        assert all(torch.equal(state[n], v) for n, v in member.state_dict().items())


def test_a_soup_of_one_net_is_a_copy_with_its_own_statistics() -> None:
    alone = net()
    soup = average_nets([alone], no_refresh)
    assert soup is not alone
    assert all(torch.equal(v, soup.state_dict()[n]) for n, v in alone.state_dict().items())


@pytest.mark.parametrize(
    ("students", "message"),
    [
        ({"a": net()}, r"students of the same net, got a, alone: set evaluation.soups=false"),
        ({"a": net(), "b": net(features=9)}, r"got a, b, which differ: set evaluation.soups=false"),
    ],
)
def test_students_that_cannot_be_averaged_are_refused(
    students: dict[str, nn.Module], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_alike(students)


# Trained nets

SETTING = [
    "data.noise=1",
    "data.num_train=160",
    "data.num_test=200",
    "data.val_fraction=0.3",
    "optimizer.lr=0.003",
    "evaluation.soups=true",
]
NORM = "model@method.students.student=resnet8"


def students(*keys: str) -> list[str]:
    return [f"+method.students.{key}=${{method.students.student}}" for key in keys]


def metrics_of(run: Path, overrides: Sequence[str], part: str, name: str) -> dict[str, float]:
    """The metrics of ``<name>.ckpt`` of a run on a part of its data."""
    data = build_data(compose(*overrides))
    soup = load_student(run, "student")
    load_weights(soup, run / f"{name}.ckpt", "run_dir")
    logits, labels = predict({"soup": soup}, data.loader(part))
    return classification_metrics(logits["soup"], labels)


@pytest.mark.slow
def test_a_soup_of_nets_with_different_initial_weights_is_near_chance(
    tmp_path: Path,
) -> None:
    words = [*of_method("supervised", list(TINY)), "method=supervised", *SETTING, NORM,
             "method.students.student.widths=[4, 4, 8, 16]", *students("b", "c"),
             "trainer.max_epochs=12", "optimizer.lr=0.01"]  # fmt: skip
    result = distill(*words, f"outputs={tmp_path}")
    nets = result.metrics["nets"]
    accuracy = {name: of_net["test"]["accuracy"] for name, of_net in nets.items()}
    assert min(accuracy[key] for key in ("student", "b", "c")) > 0.5
    assert accuracy["uniform_soup"] < 0.35  # ten classes
    assert nets["greedy_soup"]["val"]["accuracy"] >= max(
        nets[key]["val"]["accuracy"] for key in ("student", "b", "c")
    )
    table = (result.directory / "table.md").read_text()
    assert "| uniform soup of student, b, c |" in table
    for name in ("uniform_soup", "greedy_soup"):
        on_test = metrics_of(result.directory, words, "test", name)
        assert on_test == pytest.approx(nets[name]["test"], rel=1e-5)
        on_val = metrics_of(result.directory, words, "val", name)
        assert on_val["accuracy"] == pytest.approx(nets[name]["val"]["accuracy"])


@pytest.mark.slow
def test_a_soup_of_students_that_start_from_one_teacher_is_as_good_as_they_are(
    tiny: list[str], store: Path
) -> None:
    result = distill(
        "experiment=soup", *tiny, *SETTING, "model@method.teacher=resnet8",
        "teacher.trainer.max_epochs=10", "teacher.optimizer.lr=0.01", "trainer.max_epochs=2",
    )  # fmt: skip
    nets = result.metrics["nets"]
    keys = list(result.metrics["nets"]["uniform_soup"]["members"])
    assert keys == ["student", "b", "c", "d", "e"]
    accuracy = {name: of_net["test"]["accuracy"] for name, of_net in nets.items()}
    assert accuracy["teacher"] > 0.5
    assert accuracy["uniform_soup"] > min(accuracy[key] for key in keys) - 0.1
    assert nets["uniform_soup"]["parameters"] == nets["teacher"]["parameters"]
    assert 0 < nets["greedy_soup"]["agreement"] <= 1
    assert nets["vote"]["test"].keys() == {"accuracy"}
    assert nets["vote"]["parameters"] == 5 * nets["teacher"]["parameters"]
    assert 0 < nets["vote"]["agreement"] <= 1
    order = ["teacher", *keys, "ensemble", "vote", "uniform_soup", "greedy_soup"]
    assert list(nets) == order


def test_two_students_do_not_vote_and_soups_are_off_by_default(tiny: list[str]) -> None:
    result = distill(*of_method("supervised", tiny), "method=supervised", *students("b"))
    assert list(result.metrics["nets"]) == ["student", "b", "ensemble"]
    assert not list(result.directory.glob("*soup*"))


def test_temperatures_are_fitted_for_soups_but_not_for_a_vote(tiny: list[str]) -> None:
    words = [*of_method("supervised", tiny), "method=supervised", *students("b", "c"), *SETTING]
    result = distill(*words, "evaluation.temperature_scaling=true")
    scaled = {name for name, of_net in result.metrics["nets"].items() if "scaled" in of_net}
    assert scaled == set(result.metrics["nets"]) - {"vote"}


def test_without_a_val_part_there_is_only_a_uniform_soup(tiny: list[str]) -> None:
    words = [*of_method("supervised", tiny), "method=supervised", *students("b"), *SETTING]
    result = distill(*words, "data.val_fraction=0")
    assert list(result.metrics["nets"]) == ["student", "b", "ensemble", "uniform_soup"]
    assert result.metrics["nets"]["uniform_soup"]["val"] == {}


def test_a_finished_run_can_be_resumed_to_make_soups(tiny: list[str]) -> None:
    words = [*of_method("supervised", tiny), "method=supervised", *students("b")]
    run = distill(*words).directory
    again = distill(f"resume={run}", "evaluation.soups=true")
    assert {"uniform_soup", "greedy_soup"} <= set(again.metrics["nets"])


def test_a_run_whose_students_differ_is_refused_before_it_trains(
    tiny: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"evaluation.soups=true averages students of the same net"):
        distill("method=dual_student", *tiny, "evaluation.soups=true", "teacher.source=train")
    assert not list(tmp_path.glob("2*"))

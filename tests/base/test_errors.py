import pickle
from pathlib import Path

import pytest

from kd_lightning.base.errors import Damaged, UserError, similar_names, unknown, with_full_keys


def test_a_user_error_is_a_value_error():
    with pytest.raises(ValueError, match="too high"):
        raise UserError("too high")


def test_damage_is_the_same_in_another_process():
    damage = Damaged(Path("a.json"), "is empty", "make it again")
    sent = pickle.loads(pickle.dumps(damage))
    assert (type(sent), str(sent)) == (Damaged, "a.json is empty: make it again")
    assert (sent.path, sent.what) == (Path("a.json"), "is empty")
    assert str(Damaged("of a loading process, one text")) == "of a loading process, one text"


def test_similar_names_are_suggested_with_the_key_to_change():
    error = unknown("data set", "cifar11", ["cifar10", "digits"], "data")
    assert isinstance(error, UserError)
    assert str(error) == "unknown data set 'cifar11': did you mean cifar10? (data=…)"


def test_capital_letters_do_not_hide_a_name():
    assert similar_names("KD", ["kd", "mutual_learning"]) == ["kd"]
    assert similar_names("LR", ["min_lr", "optimizer.lr"])[0] == "optimizer.lr"
    assert similar_names("stars", ["Star", "star"]) == ["Star", "star"]


def test_without_similar_names_all_are_listed_in_order():
    error = unknown("kind", "xyz", iter(["series", "image"]), "data.kind")
    assert str(error) == "unknown kind 'xyz': expected one of image, series (data.kind=…)"


def test_long_lists_are_shortened_and_how_to_list_all_is_said():
    names = [f"net{i:02}" for i in range(13)]
    error = unknown("net", "xyz", names, "model", "list models")
    assert str(error).endswith("net06, net07, … (model=…; all: list models)")
    assert "net08" not in str(error)
    assert str(unknown("net", "xyz", names, "model")).endswith("net07, … (model=…)")
    assert "list models" not in str(unknown("net", "xyz", names[:8], "model", "list models"))


def test_at_most_three_similar_names_are_suggested_the_same_last_part_first():
    valid = ["logger", "optimizer.lr", "lrs", "lr1", "lr2", "seed"]
    assert similar_names("lr", valid) == ["optimizer.lr", "lrs", "lr2"]
    assert similar_names("data.lr", ["data.mlr", "optimizer.lr"]) == ["optimizer.lr", "data.mlr"]
    assert similar_names("xyz", valid) == []


def test_an_option_is_named_as_it_is_typed():
    assert str(unknown("format", "onx", ["onnx"], "--format")).endswith("onnx? (--format …)")


def test_incomplete_keys_are_completed():
    def full(message: str) -> str:
        return with_full_keys(message, "method.students.a")

    assert full("no file (…weights=…)") == "no file (method.students.a.weights=…)"
    assert full("(…mean=…, …std=…)") == "(method.students.a.mean=…, method.students.a.std=…)"
    assert full("another net (model@…=…)") == "another net (model@method.students.a=…)"
    assert full("a, b, … (data.root=…)") == "a, b, … (data.root=…)"

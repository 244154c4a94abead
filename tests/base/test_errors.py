import pytest

from kd_lightning.base.errors import UserError, unknown, with_full_keys


def test_a_user_error_is_a_value_error():
    with pytest.raises(ValueError, match="too high"):
        raise UserError("too high")


def test_similar_names_are_suggested_with_the_key_to_change():
    error = unknown("data set", "cifar11", ["cifar10", "digits"], "data")
    assert isinstance(error, UserError)
    assert str(error) == "unknown data set 'cifar11': did you mean cifar10? (data=…)"


def test_without_similar_names_all_are_listed_in_order():
    error = unknown("kind", "xyz", iter(["series", "image"]), "data.kind")
    assert str(error) == "unknown kind 'xyz': expected one of image, series (data.kind=…)"


def test_long_lists_are_shortened():
    error = unknown("net", "xyz", [f"net{i:02}" for i in range(13)], "model")
    assert "net11, … (model=…)" in str(error)
    assert "net12" not in str(error)


def test_incomplete_keys_are_completed():
    def full(message: str) -> str:
        return with_full_keys(message, "method.students.a")

    assert full("no file (…weights=…)") == "no file (method.students.a.weights=…)"
    assert full("(…mean=…, …std=…)") == "(method.students.a.mean=…, method.students.a.std=…)"
    assert full("another net (model@…=…)") == "another net (model@method.students.a=…)"
    assert full("a, b, … (data.root=…)") == "a, b, … (data.root=…)"

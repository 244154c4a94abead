"""The rows of a teacher's head are brought into the data's order, or the teacher is refused."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from kd_lightning.base.errors import UserError
from kd_lightning.teachers.class_order import Rows, read_order, rows_for

CLASSES = ["ant", "bee", "cat"]


def rows(
    outputs: int = 3,
    *,
    order: str | Sequence | None = None,
    names: Sequence[str] | None = None,
    imagenet_rows: Sequence[int] | None = None,
) -> Rows:
    return rows_for(
        CLASSES, outputs, order=order, names=names, imagenet_rows=imagenet_rows, source="net.pt"
    )


def test_a_given_order_is_taken_by_names_or_by_indices() -> None:
    for order in (["cat", "ant", "bee"], [2, 0, 1]):
        found = rows(order=order)
        assert found.rows == [1, 2, 0]  # output 1 is ant, output 2 is bee, output 0 is cat
        assert found.are_known
        assert found.note == (
            "Teacher: its classes are brought into the data's order, by teacher.class_order"
        )
    assert rows(order=["ant", "bee", "cat"]) == Rows(None, True, "", CLASSES)


def test_two_outputs_for_a_class_of_the_data_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"more than one output for bee.*teacher\.class_order=\[…\]"
    ):
        rows(4, names=["ant", "bee", "cat", "bee"])
    assert rows(5, names=["ant", "bee", "cat", "dog", "dog"]).rows == [0, 1, 2]


def test_the_datas_classes_are_taken_out_of_more() -> None:
    found = rows(5, order=["dog", "cat", "elk", "ant", "bee"])
    assert found.rows == [3, 4, 1]
    assert "the data's 3 classes are taken out of its 5" in found.note
    assert rows(4, names=["ant", "bee", "cat", "dog"]).rows == [0, 1, 2]


def test_the_names_in_the_file_are_followed_and_the_given_order_counts_first() -> None:
    found = rows(names=["bee", "ant", "cat"])
    assert found.rows == [1, 0, 2]
    assert "by the names in net.pt" in found.note
    assert rows(names=CLASSES) == Rows(None, True, "", CLASSES)
    assert rows(order=["cat", "ant", "bee"], names=["bee", "ant", "cat"]).rows == [1, 2, 0]


def test_without_names_the_datas_order_is_assumed_and_said() -> None:
    found = rows()
    assert found.rows is None
    assert not found.are_known
    assert "no class names in net.pt" in found.note
    assert "ant, bee, cat" in found.note


def test_a_head_for_imagenet_keeps_the_rows_of_the_data() -> None:
    assert rows(1000, imagenet_rows=[7, 5, 9]).rows == [7, 5, 9]
    assert rows(1000, imagenet_rows=[7, 5, 9], names=["tench"] * 1000).rows == [7, 5, 9]


def test_an_order_in_a_file_is_a_name_a_line_or_a_json_list(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    for text, content in (
        ("cat\n\nant \nbee\n", ["cat", "ant", "bee"]),
        ('["cat", "ant", "bee"]', ["cat", "ant", "bee"]),
        ("[2, 0, 1]", [2, 0, 1]),
        ("2\n0\n1\n", ["2", "0", "1"]),
    ):
        path.write_text(text)
        assert read_order(str(path)) == content
    path.write_text("cat\nant\nbee\n")
    assert rows(order=str(path)).rows == [1, 2, 0]


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (["ant", "bee"], "must name the class of each of the 3 outputs of net.pt, got 2"),
        (["ant", "bee", "bee"], "must name each class once, got bee more than once"),
        (
            ["ant", "bee", "dog"],
            "must have all 3 classes of the data, ant, bee, cat: it does not have cat, and has dog",
        ),
        ([1, 2, 3], "is the index of a class of the data, 0 to 2, got 3"),
        ([0, 1, 1], "must name each class once, got bee more than once"),
        ("gone.txt", "must be a list, or a file with one name a line or a JSON list"),
    ],
)
def test_a_wrong_order_is_refused(order: str | list, said: str) -> None:
    with pytest.raises(UserError) as raised:
        rows(order=order)
    assert said in str(raised.value)
    assert "teacher.class_order" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"), [("[1,", "line 1, column 4: expected JSON"), ("[[1]]", "list of names")]
)
def test_a_wrong_file_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text(text)
    with pytest.raises(UserError, match=rf"{said}.*teacher.class_order"):
        read_order(str(tmp_path / "order.json"))


def test_a_teacher_of_other_classes_is_refused() -> None:
    with pytest.raises(UserError, match=r"does not have bee, cat, it has ant, dog, elk; .*class"):
        rows(names=["ant", "dog", "elk"])
    with pytest.raises(UserError, match=r"names 3 classes and has 4 outputs.*class_order"):
        rows(4, names=CLASSES)
    with pytest.raises(UserError, match=r"expected weights for 3 classes, net.pt has 7: .*class"):
        rows(7)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_list_may_have_any_usual_encoding(tmp_path: Path, encoding: str, newline: str) -> None:
    (tmp_path / "order.txt").write_bytes(f"café{newline}01{newline}".encode(encoding))
    assert read_order(str(tmp_path / "order.txt")) == ["café", "01"]


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "order.txt").write_bytes("cat".encode("utf-16-be"))
    with pytest.raises(UserError, match=r"order.txt must be text in UTF-8.*teacher.class_order"):
        read_order(str(tmp_path / "order.txt"))
    with pytest.raises(UserError, match="there is no such file x"):
        read_order("x" * 5000)


def test_an_order_is_no_way_out_for_too_few_outputs() -> None:
    with pytest.raises(UserError, match=r"for 3 classes, net.pt has 2: give weights") as raised:
        rows(2)
    assert "teacher.class_order" not in str(raised.value)


def test_numbers_that_are_names_too_are_named() -> None:
    classes = sorted(map(str, range(11)))  # "10" after "1", as sorted folders are

    def order(given: list[int] | list[str]) -> Rows:
        return rows_for(classes, 11, order=given, names=None, imagenet_rows=None, source="n")

    assert order(list(range(11))).note.startswith("Teacher: the numbers in teacher.class_order are")
    by_name = order([str(number) for number in range(11)])
    assert by_name.rows == [0, 1, 10, *range(2, 10)]
    assert "numbers" not in by_name.note

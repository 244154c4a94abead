import torch

from kd_lightning.data.loading.classes import class_notes, sorted_names


def test_names_are_sorted_as_numbers_if_all_are_numbers():
    assert sorted_names({"10", "2", "-1", "1e1", "01", "1"}) == ["-1", "01", "1", "2", "10", "1e1"]
    assert sorted_names({"10", "2", "b"}) == ["10", "2", "b"]
    assert sorted_names({"nan", "1"}) == ["1", "nan"]


def test_the_note_has_every_class_with_its_label_and_count():
    assert class_notes(["walk", "sit"], torch.tensor([0, 0, 1])) == [
        "Classes: 0 = walk (2), 1 = sit (1)."
    ]


def test_many_classes_are_cut():
    (note,) = class_notes([f"c{i}" for i in range(100)], torch.arange(100))
    assert note.endswith("19 = c19 (1), … 100 classes.")


def test_a_class_three_times_as_large_as_another_is_noted():
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    assert len(class_notes(["a", "b"], labels)) == 1
    _, note = class_notes(["a", "b", "c"], torch.cat([labels, torch.tensor([2])]))
    assert note == (
        "The classes are unbalanced: b has 4 samples, c has 1. To answer always b is right for 50% "
        "of them."
    )

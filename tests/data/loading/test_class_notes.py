import torch

from kd_lightning.data.loading.class_notes import note_on_balance, note_on_classes


def test_ten_classes_are_named_and_the_others_counted():
    names = [f"c{i}" for i in range(13)]
    assert note_on_classes(names[:2]) == "Classes: 0 = c0, 1 = c1."
    assert note_on_classes(names[:10]).endswith(", 9 = c9.")
    assert note_on_classes(names).endswith(", 9 = c9, and 3 more.")


def test_unbalanced_classes_are_said_above_a_ratio_of_ten():
    def note(few, many):
        y = torch.tensor([1] * few + [0] * many + [2] * many)
        return note_on_balance(y, ["a", "b", "c"])

    assert note(4, 4) == "Training samples of each class: 4."
    assert note(1, 10) == "Training samples of a class: from 1 (b) to 10 (a)."
    assert "from 1 (b) to 11 (a); the classes are unbalanced" in note(1, 11)

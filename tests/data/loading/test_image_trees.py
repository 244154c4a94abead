"""The images of a tree: what is found and labelled, and what is passed over or cannot be read."""

import os
import re

import pytest
import torch

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.image_search import ENDINGS
from kd_lightning.data.loading.image_trees import ImageTree


@pytest.fixture
def write(tmp_path):
    """write("a/1.jpg"): empty files in a folder."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def read(tree):
    samples = tree.label(list(tree.classes), "data.root=…")
    return [f"{path.parent.name}/{path.name}" for path in samples.x]


def test_images_are_found_at_any_depth_with_endings_in_any_case(write):
    wanted = ["a.JPEG", "b.jpg", "ba/a.jpeg", "c.Png", "d.webp", "e.BMP", "f.TIF", "g.tiff"]
    others = ["notes.txt", "._a.jpg", ".hidden/a.jpg", "@eaDir/b.jpg/a.jpg", "jpg"]
    root = write(*(f"cat/{name}" for name in [*wanted, *others]))
    tree = ImageTree("train", root)
    assert tree.label(["cat"], "").x == [root / "cat" / name for name in wanted]
    (note,) = tree.notes(skip_bad=False)
    assert (
        note == f"Passed over in train: 1 .txt, 1 without ending (read are {', '.join(ENDINGS)})."
    )


def test_class_folders_of_several_parts_are_merged(write):
    root = write("x/dog/1", "x/.git/1", "y/cat/1", "y/dog/1", "x/readme.txt", "x/@eaDir/1")
    tree = ImageTree("train", root / "x", root / "y")
    assert list(tree.classes) == ["cat", "dog"]
    assert tree.classes["dog"] == [root / "x" / "dog", root / "y" / "dog"]


def test_a_folder_without_classes_is_refused(write):
    with pytest.raises(UserError, match=r"a folder for each class, found val_0001\.JPEG in"):
        ImageTree("val", write("val_0001.JPEG"))


def test_images_outside_class_folders_are_counted(write):
    tree = ImageTree("val", write("a/1.jpg", "1.jpg", "2.png", "readme.txt"))
    assert read(tree) == ["a/1.jpg"]
    assert tree.notes(skip_bad=False) == ["Passed over in val: 2 images in no class folder."]


def test_labels_are_indices_in_the_list_of_classes(tmp_path, write_tree):
    write_tree(tmp_path, {"a": 2, "b": 1, "c": 3})
    samples = ImageTree("train", tmp_path).label(["c", "a"], "")
    assert [path.parent.name for path in samples.x] == ["c"] * 3 + ["a"] * 2
    assert samples.y.tolist() == [0, 0, 0, 1, 1]
    assert samples.y.dtype == torch.int64


def test_a_class_without_a_folder_is_named(write):
    with pytest.raises(UserError, match=r"val part lacks 2 of 3 classes: b, c \(data\.root=…\)"):
        ImageTree("val", write("a/1.jpg")).label(["a", "b", "c"], "data.root=…")


def test_links_to_files_and_folders_are_followed(write):
    root = write("train/a/1.jpg", "store/2.jpg", "store/deep/3.jpg")
    (root / "train/a/4.jpg").symlink_to(root / "store/2.jpg")
    for name in ("one", "two"):  # both lead to the same folder, but neither back
        (root / "train/a" / name).symlink_to(root / "store")
    (root / "train/b").symlink_to(root / "store")
    tree = ImageTree("train", root / "train")
    expected = ["a/1.jpg", "a/4.jpg", *["one/2.jpg", "deep/3.jpg", "two/2.jpg", "deep/3.jpg"]]
    assert read(tree) == [*expected, "b/2.jpg", "deep/3.jpg"]
    assert tree.notes(skip_bad=False) == []


def link_to_itself(root):
    (root / "a/x.jpg").symlink_to("x.jpg")
    return "a/x.jpg is a link to x.jpg, where no file is"


def broken_link(root):
    (root / "a/x.jpg").symlink_to("gone.jpg")
    return "a/x.jpg is a link to gone.jpg, where no file is"


def loop(root):
    (root / "a/x").symlink_to(root)
    return f"a/x is a link back to {root}"


def loop_of_two(root):
    (root / "a/x").symlink_to(root / "b")
    (root / "b/y").symlink_to(root / "a")
    return f"a/x/y/x is a link back to {root}/b"


def pipe(root):
    os.mkfifo(root / "a/x.jpg")
    return "a/x.jpg is not a file"


@pytest.mark.parametrize("spoil", [link_to_itself, broken_link, loop, loop_of_two, pipe])
def test_what_cannot_be_read_is_named_or_left_out(write, spoil):
    root = write("a/1.jpg", "b/1.jpg").resolve()
    expected = spoil(root)
    tree = ImageTree("train", root)
    names = read(tree)
    assert names.count("a/1.jpg") == names.count("b/1.jpg") == 1
    with pytest.raises(UserError, match=re.escape(f"{root}/{expected}")):
        tree.notes(skip_bad=False)
    (note,) = tree.notes(skip_bad=True)
    assert note.startswith("Left out of train, as they cannot be read: ")


def test_the_number_of_unreadable_files_is_said(write):
    root = write("a/1.jpg")
    for i in range(3):
        (root / f"a/{i}.png").symlink_to("gone")
    tree = ImageTree("val", root)
    read(tree)
    with pytest.raises(UserError, match="where no file is, as 2 more of the val part: repair"):
        tree.notes(skip_bad=False)


def test_a_folder_that_is_removed_meanwhile_is_named(write):
    root = write("a/1.jpg", "b/1.jpg")
    tree = ImageTree("train", root)
    (root / "b/1.jpg").unlink()
    (root / "b").rmdir()
    assert read(tree) == ["a/1.jpg"]
    with pytest.raises(UserError, match=r"b is a folder that cannot be read \(No such file"):
        tree.notes(skip_bad=False)


def test_class_names_in_other_encodings_are_written_out(write):
    root = write("caf\udce9/1.jpg", "café/1.jpg")  # Latin-1 and UTF-8
    tree = ImageTree("train", root)
    assert list(tree.classes) == ["caf\\xe9", "café"]
    assert len(read(tree)) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [("cafe\u0301", "caf\u00e9"), ("caf\udce9", "caf\\xe9")],
    ids=["two forms of one character", "another encoding"],
)
def test_folders_that_look_alike_are_never_joined_or_kept_apart_silently(write, one, other):
    with pytest.raises(UserError, match=r"two folders whose names look alike .*rename or join"):
        ImageTree("train", write(f"{one}/1.jpg", f"{other}/1.jpg"))


def test_a_class_in_other_capital_letters_is_explained(write):
    tree = ImageTree("test", write("Star/1.jpg"))
    with pytest.raises(UserError, match=r"\(1\): Star; some are there with other capital letters"):
        tree.check_no_extra(["star"])


def test_a_class_in_another_form_than_in_train_is_explained(write):
    tree = ImageTree("val", write("cafe\u0301/1.jpg"))
    said = "look alike and are stored differently"
    with pytest.raises(UserError, match=rf"does not have \(1\): .*{said}"):
        tree.check_no_extra(["caf\u00e9"])
    with pytest.raises(UserError, match=rf"lacks 1 of 1 classes: .*{said}"):
        tree.label(["caf\u00e9"], "data.root=…")

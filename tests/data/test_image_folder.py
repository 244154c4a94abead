import os
import shutil

import numpy as np
import pytest
from PIL import Image

from kd_lightning.base.errors import UserError


@pytest.fixture
def folder(build, write_tree, tmp_path):
    """folder({"train/cat": 3}): the data set over such a folder, set up."""

    def make(counts, *overrides):
        write_tree(tmp_path, counts, ending=".jpg")
        options = ["data.batch_size=2", "data.image_size=6", "data.num_workers=0"]
        data = build("image_folder", f"data.root={tmp_path}", *options, *overrides)
        data.setup()
        return data

    return make


def counts_of(classes, **parts):
    return {f"{part}/{name}": count for part, count in parts.items() for name in classes}


def sizes(data):
    return [0 if part is None else len(part) for part in data.parts.values()]


def test_existing_folders_are_the_parts(folder):
    data = folder(counts_of("ba", train=10, val=3, test=4))
    assert sizes(data) == [20, 6, 8]
    assert data.class_names == ["a", "b"]
    assert data.protocol == (
        "val: the data set's own; test: the folder's own test part (20 / 6 / 8 samples)"
    )


def test_without_a_test_folder_test_is_split_off_from_train_and_not_from_val(folder):
    data = folder(counts_of("ab", train=10, val=3))
    assert sizes(data) == [16, 6, 4]
    assert {path.parts[-3] for path in data.parts["test"].x} == {"train"}
    assert not set(data.parts["test"].x) & set(data.parts["train"].x)
    assert "20% of train, stratified by class, as there is no test folder" in data.protocol


def test_without_a_val_folder_val_is_split_off_from_train(folder):
    data = folder(counts_of("ab", train=10, test=3), "data.val_fraction=0.3")
    assert sizes(data) == [14, 6, 6]
    assert {path.parts[-3] for path in data.parts["test"].x} == {"test"}


def test_a_train_folder_alone_gives_three_disjoint_parts(folder):
    data = folder(counts_of("ab", train=10), "data.test_fraction=0.3", "data.val_fraction=0.15")
    assert sizes(data) == [12, 2, 6]
    assert len({path for part in data.parts.values() for path in part.x}) == 20


def test_the_split_depends_on_split_seed_and_not_on_seed(folder, build, tmp_path):
    first = folder(counts_of("ab", train=20))

    def test_part(*overrides):
        data = build("image_folder", f"data.root={tmp_path}", "data.batch_size=2", *overrides)
        data.setup()
        return set(data.parts["test"].x)

    assert test_part("seed=1") == set(first.parts["test"].x)
    assert test_part("data.split_seed=1") != set(first.parts["test"].x)


@pytest.mark.parametrize("part", ["val", "test"])
def test_extra_classes_in_val_or_test_are_refused(folder, part):
    with pytest.raises(
        UserError, match=rf"the {part} part has classes that train does not have \(1\): z"
    ):
        folder(counts_of("ab", train=4) | counts_of("abz", **{part: 2}))


@pytest.mark.parametrize("part", ["val", "test"])
def test_missing_classes_in_val_or_test_are_refused(folder, part):
    with pytest.raises(UserError, match=f"the {part} part lacks 1 of 3 classes: b"):
        folder(counts_of("abc", train=4) | counts_of("ac", **{part: 2}))


def test_a_root_without_train_is_refused_with_what_was_found(folder):
    with pytest.raises(UserError, match=r"with train, found cat, dog in .*\(data\.root=…\)"):
        folder({"cat": 2, "dog": 2})


def test_no_root_is_refused(build):
    with pytest.raises(UserError, match=r"\(data\.root=…\)"):
        build("image_folder").setup()


@pytest.mark.parametrize("part", ["train", "test"])
def test_folders_without_images_are_refused(folder, part):
    counts = counts_of("ab", **{"train": 4, "test": 2} | {part: 0})
    with pytest.raises(UserError, match=f"the {part} part is empty"):
        folder(counts)


def test_a_train_folder_without_images_cannot_be_split(folder):
    with pytest.raises(UserError, match="no image in the train part"):
        folder(counts_of("ab", train=0))


@pytest.mark.parametrize("fraction", [0, 1, -0.1])
def test_a_test_fraction_out_of_range_is_refused(folder, fraction):
    with pytest.raises(
        Exception, match=rf"data\.test_fraction must be in \(0, 1\), got {fraction}"
    ):
        folder(counts_of("ab", train=4), f"data.test_fraction={fraction}")


def test_folders_named_by_wnids_have_imagenet_rows(folder):
    data = folder({f"train/{wnid}": 5 for wnid in ("n01443537", "n01440764")})
    assert data.imagenet_rows == [0, 1]


def test_other_folders_have_no_imagenet_rows(folder):
    assert folder(counts_of("ab", train=10)).imagenet_rows is None


# What the notes say


def note(data, start):
    (found,) = [note for note in data.notes if note.startswith(start)]
    return found


def test_the_classes_and_their_sizes_are_said(folder):
    data = folder({"train/a": 3, "train/b": 40, "test/a": 1, "test/b": 1})
    assert note(data, "Classes") == "Classes: 0 = a (3), 1 = b (40)."
    assert note(data, "The classes are unbalanced").startswith(
        "The classes are unbalanced: b has 40 samples, a has 3."
    )


@pytest.mark.parametrize("name", ["valid", "Validation", "dev"])
def test_other_names_of_a_part_are_read_and_said(folder, name):
    data = folder(counts_of("ab", Training=10, **{name: 3}, testing=4))
    assert sizes(data) == [20, 6, 8]
    assert note(data, f"The folder {name}") == f"The folder {name} is read as val."
    assert note(data, "The folder Training") == "The folder Training is read as train."
    assert "test: the folder's own test part" in data.protocol


def test_two_folders_of_one_part_are_refused(folder):
    with pytest.raises(UserError, match=r"2 folders of the val part, val and valid: keep one"):
        folder(counts_of("ab", train=4, val=2, valid=2))


def test_folders_that_are_no_part_are_said(folder):
    data = folder(counts_of("ab", train=10, test=3, extra=1) | {"@eaDir/x": 1, ".git/x": 1})
    assert note(data, "Not read") == "Not read, as they are no part: extra."


def write_png(path, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_tif_files_are_read_and_other_endings_are_counted(folder, tmp_path):
    tree = tmp_path / "train" / "b"
    tree.mkdir(parents=True)
    for i in range(40):
        write_png(tree / f"t{i}.{'TIFF' if i % 2 else 'tif'}", seed=i)
        (tree / f"{i}.gif").touch()
    for name in ("readme.txt", "list.TXT", "LICENSE"):
        (tree / name).touch()
    data = folder(counts_of("a", train=9) | counts_of("ab", test=2))
    assert sizes(data)[0] + sizes(data)[1] == 49
    assert note(data, "Passed over in train") == (
        "Passed over in train: 40 .gif, 2 .txt, 1 without ending (read are .jpg, .jpeg, .png, "
        ".webp, .bmp, .tif, .tiff)."
    )
    assert sum(len(y) for _, y in data.loader("val")) == sizes(data)[1]


@pytest.fixture
def dangling(write_tree, tmp_path):
    """A tree in which a file is a link to nothing, and one is a link to itself."""
    write_tree(tmp_path, counts_of("ab", train=10, test=3), ending=".jpg")
    (tmp_path / "train" / "b" / "zz.png").symlink_to("nowhere.png")
    return tmp_path


def test_a_broken_link_is_named(build, dangling):
    data = build("image_folder", f"data.root={dangling}", "data.batch_size=2")
    message = r"^/\S+/train/b/zz\.png is a link to nowhere\.png, where no file is: repair or remove"
    with pytest.raises(UserError, match=message):
        data.setup()


def test_a_broken_link_is_left_out_and_said(build, dangling):
    words = ["data.batch_size=2", "data.on_bad_image=skip", "data.num_workers=0"]
    data = build("image_folder", f"data.root={dangling}", *words, "data.image_size=6")
    data.setup()
    assert sizes(data) == [18, 2, 6]
    assert note(data, "Left out of train").endswith(f"1 ({dangling}/train/b/zz.png).")


def test_names_in_another_encoding_are_read_and_can_be_printed(build, write_tree, tmp_path):
    write_tree(tmp_path, counts_of("ab", train=10, test=3), ending=".jpg")
    for part in ("train", "test"):
        os.rename(tmp_path / part / "b", os.fsencode(tmp_path / part) + b"/caf\xe9")
    folder = os.fsencode(tmp_path) + b"/train/caf\xe9/"
    os.rename(folder + b"b_0.jpg", folder + b"th\xe9.jpg")
    shutil.copy(folder + b"th\xe9.jpg", os.fsencode(tmp_path) + b"/test/caf\xe9/th\xe9.jpg")
    data = build("image_folder", f"data.root={tmp_path}", "data.batch_size=2")
    data.setup()
    assert data.class_names == ["a", r"caf\xe9"]
    "".join(data.notes).encode()
    assert r"test/caf\xe9/th\xe9.jpg equals" in " ".join(data.notes)
    with open(folder + b"th\xe9.jpg", "wb"):
        pass
    with pytest.raises(UserError, match=r"th\\xe9\.jpg must be an image"):
        list(map(data.decode, data.parts["train"].x))


# A root that is one level too high or too low


def refusal(build, root):
    with pytest.raises(UserError) as refused:
        build("image_folder", f"data.root={root}", "data.batch_size=2").setup()
    return str(refused.value)


def test_a_root_one_level_too_high_or_too_low_names_the_right_one(build, write_tree, tmp_path):
    root = write_tree(tmp_path / "flowers", counts_of(["rose", "iris"], train=10))
    advice = f"(data.root={root})"
    high = refusal(build, tmp_path)
    assert high == (
        f"expected a folder of images with train, found flowers in {tmp_path}: train is one level "
        f"below {advice}"
    )
    low = refusal(build, root / "train")
    assert f"found iris, rose in {root / 'train'}: this is the train part itself {advice}" in low
    write_tree(root / "test", {"rose": 2, "iris": 2})
    assert refusal(build, root / "test").endswith(f"this is one part alone {advice}")
    assert refusal(build, root / "train" / "rose").endswith(
        f"this is a class of train itself {advice}"
    )


def test_a_root_of_class_folders_says_where_to_move_them(build, write_tree, tmp_path):
    root = write_tree(tmp_path / "flowers", {"rose": 2, "iris": 2})
    assert refusal(build, root).endswith(
        f"it holds the class folders themselves, so move them into {root / 'train'} (data.root=…)"
    )


def test_a_root_that_is_no_folder_is_refused(build, tmp_path):
    (tmp_path / "file").touch()
    for name in ("file", "gone"):
        assert "found no folder" in refusal(build, tmp_path / name)


# Orientation


def test_images_are_turned_as_their_tag_says_unless_told_not_to(folder, build, tmp_path):
    data = folder(counts_of("ab", train=10, test=1))
    tags = Image.Exif()
    tags[0x0112] = 6
    path = tmp_path / "test" / "a" / "a_0.jpg"
    Image.new("RGB", (20, 10)).save(path, exif=tags)
    assert data.decode(path).shape == (3, 20, 10)
    other = build("image_folder", f"data.root={tmp_path}", "data.batch_size=2", "data.exif=false")
    assert other.decode(path).shape == (3, 10, 20)
    assert build("imagenet", "data.batch_size=2").decode(path).shape == (3, 10, 20)

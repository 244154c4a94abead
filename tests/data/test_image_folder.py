import pytest

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
        UserError, match=f"the {part} part has 1 classes that train does not have: z"
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
    with pytest.raises(UserError, match="no image below"):
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

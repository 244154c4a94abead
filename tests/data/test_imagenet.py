import pytest

from kd_lightning.base.errors import UserError


def test_the_official_val_part_is_the_test_part_and_val_comes_from_train(stand_in):
    data = stand_in("imagenet")
    data.setup()
    folders = {part: {path.parts[-3] for path in data.parts[part].x} for part in data.parts}
    assert folders == {"train": {"train"}, "val": {"train"}, "test": {"val"}}
    assert "ImageNet's official val part, as the labels of its test part are not public" in (
        data.protocol
    )


def test_labels_are_in_the_order_of_the_wnids(stand_in):
    data = stand_in("imagenet")
    data.setup()
    assert data.class_names == sorted(data.class_names)
    for part in data.parts.values():
        assert [data.class_names[y] for y in part.y] == [path.parent.name for path in part.x]


def test_a_tree_of_all_classes_uses_all_1000_rows(build, tmp_path):
    from timm.data import ImageNetInfo

    for wnid in reversed(ImageNetInfo().label_names()):
        for part, count in (("train", 2), ("val", 1)):
            folder = tmp_path / part / wnid
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{wnid}_{i}.JPEG").touch()
    data = build("imagenet", f"data.root={tmp_path}", "data.val_fraction=0.5")
    data.setup()
    assert data.imagenet_rows == list(range(1000))
    assert data.num_classes == 1000


def test_folders_that_are_not_wnids_are_refused(build, write_tree, tmp_path):
    write_tree(tmp_path, {f"{part}/{name}": 1 for part in ("train", "val") for name in "ab"})
    with pytest.raises(UserError, match=r"wnids.*data=image_folder"):
        build("imagenet", f"data.root={tmp_path}").setup()


def test_a_flat_val_folder_is_refused(build, write_tree, tmp_path):
    write_tree(tmp_path, {"train/n01440764": 1, "val": 2})
    with pytest.raises(UserError, match=r"a folder for each class, found val_0\.JPEG, val_1\.JPEG"):
        build("imagenet", f"data.root={tmp_path}").setup()


@pytest.mark.parametrize(
    ("val", "message"),
    [(["n01440764"], "val part lacks 1"), (["n02", "n03", "n04"], r"does not have \(3\)")],
)
def test_val_must_have_the_classes_of_train(build, write_tree, tmp_path, val, message):
    write_tree(
        tmp_path, {"train/n01440764": 1, "train/n01443537": 1, **{f"val/{c}": 1 for c in val}}
    )
    with pytest.raises(UserError, match=message):
        build("imagenet", f"data.root={tmp_path}").setup()


def test_a_wrong_root_is_refused_with_what_was_found(build, tmp_path):
    (tmp_path / "ILSVRC").mkdir()
    with pytest.raises(UserError, match=r"an ImageNet tree with train, found ILSVRC in"):
        build("imagenet", f"data.root={tmp_path}").setup()

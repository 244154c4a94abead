import hashlib

import pytest

from kd_lightning.base.errors import UserError
from kd_lightning.data.imagenet100 import LISTS, find_class_list, read_class_list

WNIDS = ["n01440764", "n01443537", "n01484850", "n02085620"]


@pytest.fixture
def hundred(build, tmp_path):
    """hundred(wnids, "data.val_fraction=0"): the data set with this class list, over tmp_path."""

    def make(wnids, *overrides):
        (tmp_path / "list.txt").write_text("\n".join(wnids) + "\n")
        options = ["data.batch_size=2", "data.image_size=6", "data.num_workers=0"]
        lists = [f"data.class_list={tmp_path / 'list.txt'}"]
        return build("imagenet100", f"data.root={tmp_path}", *options, *lists, *overrides)

    return make


def kaggle(wnids):
    train = {f"train.X{1 + i % 4}/{wnid}": 4 for i, wnid in enumerate(wnids)}
    return train | {f"val.X/{wnid}": 2 for wnid in wnids}


def tree(wnids):
    return {f"{part}/{wnid}": n for part, n in (("train", 4), ("val", 2)) for wnid in wnids}


@pytest.mark.parametrize("layout", [tree, kaggle])
def test_both_layouts_are_read_in_the_order_of_the_wnids(hundred, write_tree, tmp_path, layout):
    write_tree(tmp_path, layout(WNIDS))
    data = hundred(reversed(WNIDS), "data.val_fraction=0.25")
    data.setup()
    assert data.class_names == WNIDS
    assert [len(part) for part in data.parts.values()] == [12, 4, 8]
    for part in data.parts.values():
        assert [WNIDS[y] for y in part.y] == [path.parent.name for path in part.x]
    assert "ImageNet's official val part" in data.protocol


def test_the_layout_does_not_change_the_fingerprint(hundred, write_tree, tmp_path):
    prints = set()
    for layout in (tree, kaggle):
        write_tree(tmp_path / layout.__name__, layout(WNIDS))
        data = hundred(WNIDS, f"data.root={tmp_path / layout.__name__}")
        data.setup()
        prints.add(data.fingerprint)
    assert len(prints) == 1


def test_a_tree_may_have_more_classes_than_the_list(hundred, write_tree, tmp_path):
    write_tree(tmp_path, tree([*WNIDS, "n15075141"]))
    data = hundred([WNIDS[3], WNIDS[1]])
    data.setup()
    assert data.class_names == [WNIDS[1], WNIDS[3]]
    assert data.imagenet_rows == [1, 151]
    assert len(data.parts["test"]) == 4


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_class_of_the_list_that_is_missing_is_named(hundred, write_tree, tmp_path, part):
    folders = tree(WNIDS)
    del folders[f"{part}/{WNIDS[2]}"]
    write_tree(tmp_path, folders)
    with pytest.raises(UserError, match=rf"the {part} part lacks 1 of 4 classes: {WNIDS[2]} \("):
        hundred(WNIDS).setup()


def test_a_tree_of_another_class_list_is_refused_with_both_keys(build, write_tree, tmp_path):
    write_tree(tmp_path, tree(WNIDS))
    with pytest.raises(UserError, match=r"data\.root=…, or another list than data\.class_list=cmc"):
        build("imagenet100", f"data.root={tmp_path}").setup()


def test_a_wrong_root_is_refused_with_the_layouts_and_the_found_files(hundred, tmp_path):
    (tmp_path / "ILSVRC").mkdir()
    with pytest.raises(
        UserError, match=r"train/ and val/ .* train\.X1/ .* found ILSVRC, list\.txt"
    ):
        hundred(WNIDS).setup()
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        hundred(WNIDS, f"data.root={tmp_path / 'nowhere'}").setup()
    with pytest.raises(UserError, match=r"say where ImageNet-100 is"):
        hundred(WNIDS, "data.root=null").setup()


@pytest.mark.parametrize("name", ["cmc", "kaggle"])
def test_the_built_in_lists_are_100_classes_of_imagenet(build, tmp_path, name):
    wnids = read_class_list(find_class_list(name))
    assert len(wnids) == 100
    for part, count in (("train", 2), ("val", 1)):
        for wnid in wnids:
            (tmp_path / part / wnid).mkdir(parents=True)
            for i in range(count):
                (tmp_path / part / wnid / f"{i}.JPEG").touch()
    data = build("imagenet100", f"data.root={tmp_path}", f"data.class_list={name}")
    data.setup()
    assert data.num_classes == len(data.imagenet_rows) == 100
    assert data.imagenet_rows == sorted(set(data.imagenet_rows))


def test_the_built_in_lists_differ():
    cmc, kaggle_s = (set(read_class_list(LISTS / f"{name}.txt")) for name in ("cmc", "kaggle"))
    assert len(cmc & kaggle_s) < 100


def test_the_sha256_of_the_list_is_that_of_its_file(hundred):
    data = hundred(WNIDS)
    assert data.class_list_sha256 == hashlib.sha256(("\n".join(WNIDS) + "\n").encode()).hexdigest()


def test_an_unknown_list_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(UserError, match=r"unknown class list or file 'kagle': did you mean kaggle"):
        find_class_list("kagle")


def test_a_class_that_is_twice_in_the_list_is_refused(tmp_path):
    (tmp_path / "list.txt").write_text(f"{WNIDS[0]}\n{WNIDS[1]}\n{WNIDS[0]}\n")
    with pytest.raises(UserError, match=f"has {WNIDS[0]} twice"):
        read_class_list(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(UserError, match=r"list.txt must name the classes, it is empty"):
        read_class_list(tmp_path / "list.txt")


def test_a_line_that_is_not_a_class_of_imagenet_is_refused(hundred, write_tree, tmp_path):
    write_tree(tmp_path, tree(WNIDS))
    with pytest.raises(UserError, match="every line of a class list must be a wnid"):
        hundred([*WNIDS, "n99999999"]).setup()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_the_encoding_of_a_class_list_changes_no_wnid(tmp_path, encoding):
    (tmp_path / "two.txt").write_text("n01443537\nn01440764\n", encoding=encoding)
    assert read_class_list(tmp_path / "two.txt") == ["n01440764", "n01443537"]

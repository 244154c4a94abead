import numpy as np
import pytest
import torch

from kd_lightning.base.errors import UserError
from kd_lightning.data.arrays import Arrays
from kd_lightning.data.augmentation import RandomCrop

RNG = np.random.default_rng(0)
X = RNG.normal(2, 3, (30, 2, 5)).astype(np.float32)
Y = np.arange(30) % 3
GROUPS = np.arange(30) // 5  # six subjects, all classes each
WORDS = np.array(["walk", "run", "sit"])[Y]
WHOLE = {"x": X, "y": Y}
PARTS = {"x_train": X, "y_train": Y, "x_test": X[:6], "y_test": Y[:6]}
IMAGES = np.zeros((30, 1, 4, 4), np.float32)


@pytest.fixture
def made(tmp_path):
    def make(arrays, **kwargs):
        np.savez(tmp_path / "mine.npz", **arrays)
        arguments = {"root": str(tmp_path / "mine.npz"), "batch_size": 2, "val_fraction": 0.2,
                     "on_leak": "ignore"}  # fmt: skip
        data = Arrays(**{**arguments, **kwargs})
        data.setup()
        return data

    return make


def rows(samples):
    return {tuple(x.flatten().tolist()) for x in samples.x}


def test_facts(made):
    data = made({**WHOLE, "class_names": np.array(["a", "b", "c"])})
    train = data.parts["train"].x
    assert (data.num_classes, data.channels, data.size) == (3, 2, 5)
    assert data.class_names == ["a", "b", "c"]
    assert data.mean == pytest.approx(train.mean((0, 2)).tolist())
    assert data.std == pytest.approx(train.transpose(0, 1).flatten(1).std(1).tolist())
    assert "20% of the file, stratified by class (split_seed 0)" in data.protocol
    assert made(PARTS).class_names == ["0", "1", "2"]


def test_an_augmentation_of_images_is_refused_for_series(made):
    with pytest.raises(UserError, match=r"not suit series of shape \(2, 5\), as those of this"):
        made(WHOLE, augmentation=RandomCrop(28, 2))


def test_a_part_in_another_unit_is_said(made):
    """A test part in millivolts, where train is in volts."""
    volts = np.array([1, 1000], np.float32).reshape(2, 1)
    data = made({**PARTS, "x_test": X[:6] * volts, "y_test": Y[:6]})
    (note,) = [note for note in data.notes if "unit" in note]
    assert note.startswith("1 of 2 channels of test are of another size than in train (channel 1: ")
    assert note.endswith("are they in the same unit?")
    far = np.array([100, 0], np.float32).reshape(2, 1)
    (note,) = [n for n in made({**PARTS, "x_test": X[:6] + far}).notes if "unit" in n]
    assert "channel 0: mean" in note
    still = X * np.array([1, 0], np.float32).reshape(2, 1)  # a sensor that was off in train
    data = made({**PARTS, "x_train": still})
    assert not any("unit" in note for note in [*made(PARTS).notes, *made(WHOLE).notes, *data.notes])


def test_one_set_is_split_into_three_disjoint_parts_without_loss(made):
    parts = made(WHOLE, test_fraction=0.3).parts
    train, val, test = (rows(parts[part]) for part in ("train", "val", "test"))
    assert len(train | val | test) == len(train) + len(val) + len(test) == 30
    assert len(test) == 9
    assert torch.bincount(parts["test"].y).tolist() == [3, 3, 3]


def test_the_split_depends_on_split_seed_and_not_on_seed(made):
    test = rows(made(WHOLE).parts["test"])
    assert rows(made(WHOLE, seed=1).parts["test"]) == test
    assert rows(made(WHOLE, split_seed=1).parts["test"]) != test


@pytest.mark.parametrize("groups", [GROUPS, np.array([f"s{g}" for g in GROUPS])])
def test_with_groups_every_split_is_by_subject(made, groups):
    data = made({**WHOLE, "groups": groups})
    subjects = [set(data.parts[part].groups.tolist()) for part in ("train", "val", "test")]
    assert sum(map(len, subjects)) == len(set.union(*subjects)) == 6
    share = len(data.parts["test"]) / len(X)
    assert share == pytest.approx(1 / 3)  # 20 % were asked for: two of six whole subjects
    assert f"{share:.0%} of the file, by subject" in data.protocol


def test_parts_of_the_file_are_used_unchanged(made):
    val = {"x_val": X[:4] + 1, "y_val": Y[:4]}
    data = made({**PARTS, **val})
    assert torch.equal(data.parts["train"].x, torch.from_numpy(X))
    assert torch.equal(data.parts["val"].x, torch.from_numpy(X[:4] + 1))
    assert torch.equal(data.parts["test"].x, torch.from_numpy(X[:6]))
    assert data.parts["test"].y.tolist() == Y[:6].tolist()
    assert "the file's own test part" in data.protocol


def test_a_split_by_subject_that_leaves_a_class_without_training_samples_is_refused(made):
    """Fixed defect: the class was never learned, and val had nothing else."""
    y = np.repeat([0, 1], [20, 10])
    groups = np.repeat([0, 1, 2], 10)  # the only subject of class 1 is 2
    said, lacking = set(), []
    for seed in range(8):
        try:
            data = made({"x_train": WHOLE["x"], "y_train": y, "groups_train": groups,
                         "x_test": WHOLE["x"], "y_test": y}, split_seed=seed)  # fmt: skip
        except UserError as error:
            said.add(str(error))
        else:
            lacking.append([note for note in data.notes if "val has no sample of" in note])
    assert said == {
        "the split by subject leaves no training sample of 1: choose another one "
        "(data.split_seed=…), or give a val part"
    }
    assert lacking
    assert all(len(notes) == 1 for notes in lacking)


def test_val_is_split_off_from_train_by_groups(made):
    parts = made({**PARTS, "groups_train": GROUPS}).parts
    assert not set(parts["train"].groups.tolist()) & set(parts["val"].groups.tolist())
    assert len(parts["train"]) + len(parts["val"]) == 30


@pytest.mark.parametrize(
    ("x", "shape", "dtype"),
    [
        (X[:, 0], (1, 5), torch.float32),
        (X.astype(np.float64), (2, 5), torch.float32),
        ((X * 100).astype(np.int16), (2, 5), torch.float32),
        (RNG.integers(0, 256, (30, 2, 5), dtype=np.uint8), (2, 5), torch.float32),
        (RNG.integers(0, 256, (30, 3, 4, 4), dtype=np.uint8), (3, 4, 4), torch.uint8),
        (RNG.random((30, 3, 4, 4)), (3, 4, 4), torch.float32),
    ],
)
def test_images_and_series_of_every_number_type_are_read(made, x, shape, dtype):
    train = made({"x": x, "y": Y}).parts["train"].x
    assert train.shape[1:] == shape
    assert train.dtype == dtype


@pytest.mark.parametrize(
    ("x", "note"),
    [
        (X, "x: 30 series of 2 channels x 5 steps, float32."),
        (
            X[:, 0].astype(np.float64),
            "x: 30 series of 1 channel x 5 steps, float64 read as float32.",
        ),
        (np.zeros((30, 3, 8, 8), np.uint8), "x: 30 images of 3 channels x 8 x 8, uint8."),
    ],
)
def test_a_note_says_what_each_axis_is(made, x, note):
    assert made({"x": x, "y": Y}).notes == [note, "Classes: 0 = 0 (10), 1 = 1 (10), 2 = 2 (10)."]


def test_each_part_has_its_note(made):
    notes = made({**PARTS, "class_names": np.array(["walk", "sit", "run"])}).notes
    assert notes == [
        "x_train: 30 series of 2 channels x 5 steps, float32.",
        "x_test: 6 series of 2 channels x 5 steps, float32.",
        "Classes: 0 = walk (12), 1 = sit (12), 2 = run (12).",
    ]


def test_series_with_more_channels_than_steps_look_transposed(made):
    _, warning, _ = made({"x": X.transpose(0, 2, 1), "y": Y}).notes
    assert warning.startswith("x looks transposed: it has more channels than steps")
    assert warning.endswith("save x.transpose(0, 2, 1).")
    assert not any("transposed" in note for note in made({"x": X[:, :, :2], "y": Y}).notes)


def labels_of(data):
    """The class name of each sample, by the values of the sample."""
    return {
        tuple(x.flatten().tolist()): data.class_names[y]
        for samples in data.parts.values()
        for x, y in zip(samples.x, samples.y.tolist(), strict=True)
    }


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (np.array(["walk", "sit", "run"])[Y], ["run", "sit", "walk"]),
        (np.array([b"walk", b"sit", "né".encode()])[Y], ["né", "sit", "walk"]),
        (np.array(["10", "2", "1"])[Y], ["1", "2", "10"]),
        (np.array(["1", "01", "1.0"])[Y], ["01", "1", "1.0"]),
        (Y + 1, ["1", "2", "3"]),
        (np.array([7, -3, 12])[Y], ["-3", "7", "12"]),
        (np.array([2**63, 2**63 + 1, 5], np.uint64)[Y], ["5", str(2**63), str(2**63 + 1)]),
    ],
)
def test_labels_of_any_kind_name_their_classes(made, y, names):
    data = made({"x": X, "y": y})
    assert data.class_names == names
    texts = [label.decode() if isinstance(label, bytes) else str(label) for label in y.tolist()]
    assert labels_of(data) == {
        tuple(x.flatten().tolist()): t for x, t in zip(X, texts, strict=True)
    }


def test_a_note_says_which_numbers_became_names(made):
    note = "y has the labels 1, 2, 3 and not 0..2: each is the name of a class, in this order."
    assert note in made({"x": X, "y": Y + 1}).notes
    assert not any("y has" in note for note in made(WHOLE).notes)


def test_text_labels_take_the_order_of_class_names(made):
    names = np.array(["walk", "run", "sit"])
    data = made({"x": X, "y": WORDS, "class_names": names})
    assert data.class_names == names.tolist()
    assert set(labels_of(data).items()) == {
        (tuple(x.flatten().tolist()), str(word)) for x, word in zip(X, WORDS, strict=True)
    }


def test_unbalanced_classes_are_noted(made):
    y = np.where(np.arange(30) < 24, "many", "few")
    assert made({"x": X, "y": y}).notes[-1] == (
        "The classes are unbalanced: many has 24 samples, few has 6. To answer always many is "
        "right for 80% of them."
    )


def bad(**arrays):
    return {**WHOLE, **arrays}


NAN = X.copy()
NAN[3, 1, 2] = np.nan


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, r"must hold x and y .* this one holds x \(data.root"),
        ({**WHOLE, "labels": Y}, r"this one holds labels, x, y"),
        ({**PARTS, "x_val": X}, r"this one holds x_test, x_train, x_val, y_test, y_train"),
        ({**PARTS, "groups_val": GROUPS}, r"this one holds groups_val"),
        ({**PARTS, "x": X}, r"this one holds x, x_test"),
        (bad(x=X[:, :, :, None, None]), r"x must be numbers of shape .* \(30, 2, 5, 1, 1\)"),
        (bad(x=X.astype(str)), r"x must be numbers .* got <U"),
        (bad(x=X[:0], y=Y[:0]), r"x is empty, of shape \(0, 2, 5\)"),
        (
            bad(x=X.astype(object)),
            r"'x' in .* it holds Python objects: .* different lengths to one",
        ),
        (bad(x=NAN), r"NaN or infinite values, in 1 samples"),
        (
            bad(x=np.zeros((30, 8, 8, 3))),
            r"images must be square, .* save x.transpose\(0, 3, 1, 2\)",
        ),
        (bad(x=np.full_like(X, 9.96921e36)), r"values reach 9.97e\+36, too large to be normalized"),
        (bad(x=X.astype(np.float64) * 1e39), r"NaN or infinite values, in 30 samples"),
        (bad(x=X[..., None] + 100), r"images must be uint8 or in \[0, 1\], x is .* from"),
        (bad(y=Y[:-1]), r"x has 30 samples, y has 29"),
        (bad(y=Y.astype(float)), r"y must be one row of integers or names, got float64 of .*30,"),
        (bad(y=np.eye(3, dtype=int)[Y]), r"y must be one row of integers or names, .* \(30, 3\)"),
        (bad(y=Y, class_names=np.array(["a", "b"])), r"integers 0..1, .* y has 0, 1, 2"),
        (bad(y=Y + 1, class_names=np.array(["a", "b", "c"])), r"integers 0..2, .* y has 1, 2, 3"),
        (bad(y=Y - 1, class_names=np.array(["a", "b", "c"])), r"integers 0..2, .* y has -1, 0, 1"),
        (bad(y=WORDS, class_names=np.array(["run", "sit"])), r"class_names, run, sit; y has walk"),
        (bad(y=np.where(Y == 1, "", WORDS)), r"y has no text in sample number 1 \(data"),
        (bad(y=np.array([b"\xff", b"a", b"b"])[Y]), r"y must be text in UTF-8"),
        (
            bad(y=WORDS.astype(object)),
            r"'y' in .* it holds Python objects: make text of them by astype\(str\)",
        ),
        ({**PARTS, "y_test": WORDS[:6]}, r"all integers or all names, y_train is int64 and y_test"),
        (bad(class_names=np.array([["a", "b"]])), r"class_names must be one row of names, got <U1"),
        (bad(class_names=np.array(["a", "a", "b"])), r"class_names must be different"),
        (bad(groups=GROUPS[:-1]), r"x has 30 samples, groups has 29"),
        (bad(groups=GROUPS / 2), r"groups must be one row of integers or names, got float64"),
        (bad(groups=GROUPS * 0), r"a test part by subject needs two subjects"),
        (bad(groups=GROUPS // 3), r"a split by subject needs two subjects"),
        ({**PARTS, "x_test": X[:6, :, :4]}, r"x_train has \(2, 5\) .* x_test \(2, 4\)"),
        (
            {**PARTS, "x_train": IMAGES, "x_test": IMAGES[:6].astype(np.uint8)},
            r"x_test \(1, 4, 4\) torch.uint8",
        ),
        (
            {**PARTS, "groups_train": GROUPS, "groups_test": GROUPS[:6] + 5},
            r"groups_train and groups_test share 1",
        ),
    ],
)
def test_invalid_files_are_refused(made, arrays, message):
    with pytest.raises(UserError, match=message):
        made(arrays)


def test_root_must_be_an_npz_file(tmp_path):
    (tmp_path / "mine.npy").write_bytes(b"\x93NUMPY")
    for root, received in (
        (None, "nothing"),
        (tmp_path, str(tmp_path)),
        (tmp_path / "mine.npy", "npy"),
    ):
        with pytest.raises(UserError, match=rf"reads an .npz file, got .*{received}.*data.root"):
            Arrays(root=root, batch_size=2).setup()


@pytest.mark.parametrize("fraction", [0, 1])
def test_test_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(UserError, match=rf"test_fraction must be in \(0, 1\), got {fraction}"):
        Arrays(batch_size=2, test_fraction=fraction)


@pytest.mark.parametrize(
    ("make", "is_what"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.touch(), "is empty"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_text("x"), "is damaged or another kind of file"),
    ],
)
def test_what_is_no_npz_file_is_said(tmp_path, make, is_what):
    make(tmp_path / "some.npz")
    with pytest.raises(UserError, match=rf"some\.npz, which {is_what}"):
        Arrays(root=str(tmp_path / "some.npz"), batch_size=2).setup()


def test_ids_of_17_digits_and_names_with_zeros_stay_different_classes(made):
    ids = np.array([12345678901234567, 12345678901234568])[np.arange(30) % 2]
    assert made({"x": X, "y": ids}).class_names == ["12345678901234567", "12345678901234568"]
    names = np.array(["01", "1", "1e2", "100"])[np.arange(30) % 4]
    assert made({"x": X, "y": names}).class_names == ["01", "1", "100", "1e2"]


@pytest.mark.parametrize("name", ["y", "class_names", "groups"])
@pytest.mark.parametrize("code", [0x110000, 0xFFFFFFFF, 0xD800], ids=hex)
def test_numbers_that_are_no_character_are_refused(made, name, code):
    damaged = np.array([0x61, 0x62, code], dtype=np.uint32)
    damaged = damaged[np.arange(3 if name == "class_names" else 30) % 3].view("<U1")
    with pytest.raises(UserError, match=rf"{name} must be text in UTF-8, got other bytes"):
        made({**WHOLE, name: damaged})


def test_subjects_may_be_bytes(made):
    parts = made({**WHOLE, "groups": np.array([f"s{g}".encode() for g in GROUPS])}).parts
    assert not set(parts["train"].groups.tolist()) & set(parts["test"].groups.tolist())

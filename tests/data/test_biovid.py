import numpy as np
import pytest
import torch

from kd_lightning.base.errors import UserError
from kd_lightning.data.biovid import FOLDER, LEVELS, BioVid, list_subjects

SUBJECTS = ["071309_w_21", "071614_m_20", "080209_w_26", "101114_w_37"]
COLUMNS = ["time", "gsr", "ecg", "emg_trapezius", "emg_corrugator", "emg_zygomaticus"]
LENGTH = 16


def write_sample(path, level, subject, length=LENGTH):
    """Column c has the value 10 c + level + subject / 100."""
    values = np.full((length, 6), LEVELS.index(level) + subject / 100) + 10 * np.arange(6)
    np.savetxt(path, values, delimiter="\t", header="\t".join(COLUMNS), comments="", fmt="%.6f")


@pytest.fixture
def root(tmp_path):
    """The distributed layout of part A, with 3 samples a level instead of 20."""
    for number, subject in enumerate(SUBJECTS):
        folder = tmp_path / FOLDER / subject
        folder.mkdir(parents=True)
        for level in LEVELS:
            for index in (8, 34, 99):
                write_sample(folder / f"{subject}-{level}-{index:03}_bio.csv", level, number)
    (tmp_path / FOLDER / "notes.txt").touch()
    return tmp_path


def made(root, **kwargs):
    arguments = {
        "classes": ["BL1", "PA4"],
        "channels": ["gsr"],
        "length": LENGTH,
        "batch_size": 2,
        "val_fraction": 0.3,
    }
    data = BioVid(root=str(root), **{**arguments, **kwargs})
    data.setup()
    return data


def test_facts(root):
    data = made(root, fold=3)
    assert (data.num_classes, data.channels, data.size) == (2, 1, LENGTH)
    assert data.class_names == ["BL1", "PA4"]
    assert data.mean == pytest.approx([12.01], abs=0.02)
    assert data.std == pytest.approx([2.0], rel=0.05)
    assert "by subject" in data.protocol
    assert "subject 101114_w_37, fold 3 of 4" in data.protocol


def test_channels_and_classes_are_the_requested_ones_in_order(root):
    data = made(root, channels=["ecg", "gsr"], classes=["PA3", "BL1", "PA1"], val_fraction=0)
    train = data.parts["train"]
    assert train.x.shape == (27, 2, LENGTH)
    assert train.x.dtype == torch.float32
    assert train.y.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] * 3
    assert train.x[0, :, 0].tolist() == pytest.approx([23.01, 13.01])
    assert train.x[3, :, 0].tolist() == pytest.approx([20.01, 10.01])


def test_each_subject_is_tested_in_one_fold_and_no_subject_is_in_two_parts(root):
    left_out = []
    for fold in range(4):
        parts = made(root, fold=fold).parts
        train, val, test = (set(parts[p].groups.tolist()) for p in ("train", "val", "test"))
        assert len(train) + len(val) + len(test) == len(train | val | test) == 4
        assert len(parts["test"]) == 6
        left_out += test
    assert left_out == [0, 1, 2, 3]
    assert list_subjects(root) == SUBJECTS


@pytest.mark.parametrize("fold", [-1, 4])
def test_a_fold_out_of_range_is_refused_with_the_number_of_subjects(root, fold):
    with pytest.raises(UserError, match=rf"data.fold must be 0..3, .* 4 subjects .* got {fold}"):
        made(root, fold=fold)


def test_a_wrong_root_is_refused_with_the_expected_and_the_found_files(root):
    with pytest.raises(UserError, match=r"part A with biosignals_filtered, found 071309_w_21, .*"):
        made(root / FOLDER)
    with pytest.raises(UserError, match=r"say where .* is \(data.root=…\)"):
        BioVid(classes=["BL1", "PA4"], channels=["gsr"], batch_size=2).setup()


def test_one_subject_is_too_few(tmp_path):
    (tmp_path / FOLDER / SUBJECTS[0]).mkdir(parents=True)
    with pytest.raises(UserError, match=rf"two subject folders or more, found {SUBJECTS[0]} in"):
        made(tmp_path)


def test_two_subjects_leave_too_few_for_val(root):
    for subject in SUBJECTS[2:]:
        (root / FOLDER / subject).rename(root / subject)
    assert made(root, val_fraction=0).parts["val"] is None
    with pytest.raises(UserError, match=r"two subjects or more \(data.val_fraction=0\)"):
        made(root)


def test_a_subject_without_a_level_is_named(root):
    for path in (root / FOLDER / SUBJECTS[2]).glob("*-PA4-*"):
        path.unlink()
    with pytest.raises(UserError, match=rf"expected {SUBJECTS[2]}-PA4-<number>_bio.csv, found"):
        made(root)


def test_a_file_of_wrong_length_is_named(root):
    name = f"{SUBJECTS[1]}-PA4-034_bio.csv"
    write_sample(root / FOLDER / SUBJECTS[1] / name, "PA4", 1, length=LENGTH - 1)
    with pytest.raises(UserError, match=rf"{name} must have 16 rows, it has 15"):
        made(root)
    with pytest.raises(UserError, match="must have 2816 rows"):
        made(root, length=2816)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("NaN", r"-034_bio.csv, line 2: expected a finite number, got 'NaN'"),
        ("n/a", r"-034_bio.csv, line 2: expected a finite number, got 'n/a'"),
    ],
)
def test_values_that_are_not_numbers_are_refused(root, word, message):
    path = root / FOLDER / SUBJECTS[1] / f"{SUBJECTS[1]}-PA4-034_bio.csv"
    path.write_text(path.read_text().replace("14.010000", word, 1))
    with pytest.raises(UserError, match=message):
        made(root, val_fraction=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ["BL1", "PA5"]}, r"unknown BioVid level 'PA5'.*data.classes"),
        ({"classes": ["BL1", "BL1"]}, r"data.classes must be different"),
        ({"channels": []}, r"data.channels must be different names, got \[\]"),
        ({"channels": ["eda"]}, r"unknown column in .* 'eda'.*data.channels"),
    ],
)
def test_unknown_names_are_refused(root, arguments, message):
    with pytest.raises(UserError, match=message):
        made(root, **arguments)


def test_thumbnail_folders_of_file_servers_are_no_subjects(root):
    for name in ("@eaDir", ".thumbnails"):
        (root / FOLDER / name).mkdir()
    assert list_subjects(root) == SUBJECTS


def test_a_first_row_with_a_column_too_few_is_named_with_its_line(root):
    path = next((root / FOLDER / SUBJECTS[0]).glob("*-BL1-*"))
    head, first, *rest = path.read_text().split("\n")
    path.write_text("\n".join([head, first.rpartition("\t")[0], *rest]))
    with pytest.raises(UserError, match=r"_bio.csv, line 2: expected 6 columns, got 5"):
        made(root, channels=["emg_zygomaticus"])


def test_an_index_in_front_shifts_no_column(root):
    """pandas writes an empty name over its index, and R none."""
    before = made(root, channels=["gsr"]).parts["test"].x
    for path in (root / FOLDER).glob("*/*_bio.csv"):
        head, *rows = path.read_text().splitlines()
        rows = [f"{number}\t{row}" for number, row in enumerate(rows)]
        path.write_text("\n".join(["\t" + head, *rows]))
    assert torch.equal(made(root, channels=["gsr"]).parts["test"].x, before)
    path = next((root / FOLDER / SUBJECTS[0]).glob("*-BL1-*"))
    path.write_text(path.read_text().removeprefix("\t"))
    with pytest.raises(UserError, match=r"_bio.csv, line 2: expected 6 columns, got 7"):
        made(root, channels=["gsr"])


def test_a_file_of_another_encoding_is_refused_in_one_printable_sentence(root):
    path = next((root / FOLDER / SUBJECTS[0]).glob("*-BL1-*"))
    path.write_bytes(path.read_text().encode("utf-16-le"))
    with pytest.raises(UserError, match=r"_bio.csv must be text in UTF-8") as caught:
        made(root)
    assert str(caught.value).isprintable()

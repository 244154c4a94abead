import numpy as np
import pytest
import torch

from kd_lightning.base.errors import UserError
from kd_lightning.data.har import ACTIVITIES, CHANNELS, HAR

SUBJECTS = {"train": [1, 3, 5, 6], "test": [2, 4]}


@pytest.fixture
def root(tmp_path):
    """The distributed layout, with one window for each subject and activity."""
    root = tmp_path / "UCI HAR Dataset"
    rng = np.random.default_rng(0)
    for part, subjects in SUBJECTS.items():
        signals = root / part / "Inertial Signals"
        signals.mkdir(parents=True)
        rows = 6 * len(subjects)
        for number, channel in enumerate(CHANNELS):
            values = rng.normal(number, 0.1, (rows, 128))
            np.savetxt(signals / f"{channel}_{part}.txt", values, fmt="%16.7e")
        np.savetxt(root / part / f"y_{part}.txt", np.tile(np.arange(1, 7), len(subjects)), "%d")
        np.savetxt(root / part / f"subject_{part}.txt", np.repeat(subjects, 6), "%d")
    labels = "".join(f"{i + 1} {name}\n" for i, name in enumerate(ACTIVITIES))
    (root / "activity_labels.txt").write_text(labels)
    return root


def made(root, **kwargs):
    data = HAR(root=str(root), batch_size=4, **{"val_fraction": 0.25, **kwargs})
    data.setup()
    return data


def test_windows_are_nine_channels_in_the_published_order(root):
    data = made(root, val_fraction=0)
    train = data.parts["train"]
    assert train.x.shape == (24, 9, 128)
    assert train.x.dtype == torch.float32
    assert CHANNELS[0] == "body_acc_x"
    assert CHANNELS[-1] == "total_acc_z"
    expected = np.loadtxt(root / "train/Inertial Signals/body_gyro_y_train.txt", dtype=np.float32)
    assert torch.equal(train.x[:, CHANNELS.index("body_gyro_y")], torch.from_numpy(expected))
    assert train.y.tolist() == list(range(6)) * 4


def test_facts(root):
    data = made(root)
    assert (data.num_classes, data.channels, data.size) == (6, 9, 128)
    assert data.mean == pytest.approx(range(9), abs=0.05)
    assert data.std == pytest.approx([0.1] * 9, rel=0.1)
    assert "25% of train, by subject" in data.protocol
    assert "own test subjects" in data.protocol


def test_no_subject_is_in_two_parts(root):
    parts = made(root).parts
    subjects = [set(parts[part].groups.tolist()) for part in ("train", "val", "test")]
    assert subjects[0] | subjects[1] == {1, 3, 5, 6}
    assert subjects[2] == {2, 4}
    assert len(subjects[0]) + len(subjects[1]) == 4


def test_class_names_come_from_the_file_or_are_the_default_six(root):
    file = root / "activity_labels.txt"
    assert made(root).class_names == ACTIVITIES
    file.write_text(file.read_text().replace("LAYING", "LYING DOWN"))
    assert made(root).class_names[-1] == "LYING DOWN"
    file.unlink()
    assert made(root).class_names == ACTIVITIES


def test_any_number_of_classes_is_read(root):
    for part, subjects in SUBJECTS.items():
        labels = np.tile([1, 1, 2, 2, 3, 3], len(subjects))
        np.savetxt(root / part / f"y_{part}.txt", labels, "%d")
    file = root / "activity_labels.txt"
    file.write_text("1 WALKING\n2 LYING DOWN\n3 RUNNING\n")
    data = made(root)
    assert data.class_names == ["WALKING", "LYING DOWN", "RUNNING"]
    assert data.notes == ["Classes: 0 = WALKING (12), 1 = LYING DOWN (12), 2 = RUNNING (12)."]
    file.unlink()
    assert made(root).class_names == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 WALKING\n2 SITTING\n", r"y_train.txt, line 3: expected a label 1..2, got 3"),
        ("1 WALKING\n\n3 SITTING\n", r"activity_labels.txt, line 3: expected '2 NAME', .* '3 SIT"),
        ("1 WALKING\n2\n", r"activity_labels.txt, line 2: expected '2 NAME', .* got '2'"),
    ],
)
def test_class_names_that_do_not_fit_are_refused(root, text, message):
    (root / "activity_labels.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        made(root)


@pytest.mark.parametrize("other", ["..", "train", "test", "train/Inertial Signals"])
def test_a_root_around_or_inside_the_folder_is_understood_and_noted(root, other):
    expected = made(root)
    data = made((root / other).resolve())
    assert data.fingerprint == expected.fingerprint
    assert data.notes[0].startswith("data.root=")
    assert data.notes[0].endswith(f"is not the data set's folder: {root} is.")


def test_a_wrong_root_is_refused_with_the_expected_and_the_found_files(root):
    (root / "test" / "y_test.txt").unlink()
    with pytest.raises(UserError, match=r"'UCI HAR Dataset' with train.*found UCI HAR Dataset in"):
        made(root.parent)
    with pytest.raises(UserError, match=r"say where .* is \(data.root=…\)"):
        HAR(batch_size=4).setup()


def test_a_missing_file_is_named(root):
    (root / "test" / "Inertial Signals" / "total_acc_z_test.txt").unlink()
    with pytest.raises(UserError, match=r"with test/Inertial Signals/total_acc_z_test.txt"):
        made(root)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("train/y_train.txt", "1\nwalking\n", r"y_train.txt, line 2: expected a whole number, got"),
        ("train/y_train.txt", "1\n\n0\n" * 8, r"line 3: expected a label 1..6, got 0"),
        ("train/y_train.txt", "7\n" * 24, r"line 1: expected a label 1..6, got 7"),
        ("train/y_train.txt", "1 2\n" * 24, r"line 1: expected 1 column, got 2"),
        ("train/y_train.txt", "\n", r"y_train.txt must be a table of numbers, it has none"),
        ("train/subject_train.txt", "1\n" * 5, r"a line for each of the 24 labels, it has 5"),
        (
            "test/Inertial Signals/body_acc_x_test.txt",
            "1 2\n",
            r"line 1: expected 128 columns, got",
        ),
        ("train/subject_train.txt", "1\n2\n" * 12, r"different subjects, both have \[2\]"),
    ],
)
def test_bad_files_are_refused(root, file, text, message):
    (root / file).write_text(text)
    with pytest.raises(UserError, match=message):
        made(root)


def test_missing_values_are_refused(root):
    file = root / "train" / "Inertial Signals" / "body_acc_x_train.txt"
    lines = file.read_text().splitlines()
    lines[3] = lines[3].replace(lines[3].split()[7], "NaN", 1)
    file.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"body_acc_x_train.txt, line 4: .* got 'NaN'"):
        made(root, val_fraction=0)


def test_val_by_subject_needs_two_subjects(root):
    (root / "train" / "subject_train.txt").write_text("1\n" * 24)
    with pytest.raises(UserError, match="needs two subjects"):
        made(root)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_names_of_activities_may_have_any_usual_encoding(root, encoding):
    text = (root / "activity_labels.txt").read_text().replace("LAYING", "COUCHÉ")
    (root / "activity_labels.txt").write_bytes(text.encode(encoding))
    assert made(root).class_names[-1] == "COUCHÉ"

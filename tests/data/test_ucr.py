import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch

from kd_lightning.base.errors import UserError
from kd_lightning.data import ucr
from kd_lightning.data.ucr import UCR, encode_labels, to_length

needs_aeon = pytest.mark.skipif(importlib.util.find_spec("aeon") is None, reason="needs aeon")

TS = """# made for a test
@problemName Made
@timeStamps false
@univariate false
@equalLength false
@classLabel true walk Run
@data
"""


def write(root, name, suffix, train, test, header=""):
    (root / name).mkdir(parents=True)
    for part, lines in (("TRAIN", train), ("TEST", test)):
        text = header + "".join(line + "\n" for line in lines)
        (root / name / f"{name}_{part}{suffix}").write_text(text)


def made(root, name="Made", **kwargs):
    data = UCR(name=name, root=str(root), batch_size=2, **{"val_fraction": 0, **kwargs})
    data.setup()
    return data


# The problems in aeon's wheel: name, train, test, channels, length, classes.
INSIDE = [
    ("OSULeaf", 200, 242, 1, 427, 6),
    ("ACSF1", 100, 100, 1, 1460, 10),
    ("ArrowHead", 36, 175, 1, 251, 3),
    ("GunPoint", 50, 150, 1, 150, 2),
    ("ItalyPowerDemand", 67, 1029, 1, 24, 2),
    ("BasicMotions", 40, 40, 6, 100, 4),
    ("JapaneseVowels", 270, 370, 12, 26, 9),
    ("PickupGestureWiimoteZ", 50, 50, 1, 361, 10),
]


@needs_aeon
@pytest.mark.parametrize(("name", "train", "test", "channels", "size", "num_classes"), INSIDE)
def test_problems_in_aeon_need_no_root(name, train, test, channels, size, num_classes):
    data = UCR(name=name, batch_size=8, val_fraction=0)
    data.setup()
    assert data.parts["train"].x.shape == (train, channels, size)
    assert data.parts["test"].x.shape == (test, channels, size)
    assert data.parts["train"].x.dtype == torch.float32
    assert (data.num_classes, data.channels, data.size) == (num_classes, channels, size)


@needs_aeon
def test_mean_and_std_are_those_of_train_without_val():
    data = UCR(name="OSULeaf", batch_size=8, val_fraction=0.2)
    data.setup()
    x = data.parts["train"].x
    assert data.mean == pytest.approx([x.mean().item()])
    assert data.std == pytest.approx([x.std().item()])
    assert len(data.parts["train"]) + len(data.parts["val"]) == 200
    assert "20% of train" in data.protocol
    assert "the archive's own test part" in data.protocol


COUNTS = ",".join(map(str, range(9)))


@pytest.mark.parametrize("header", [f"label,{COUNTS}", "label" + COUNTS[1:], COUNTS])
def test_a_header_of_numbers_is_no_series(tmp_path, header):
    rows = ["0,0.5,1.5,2,3,4,5,6,7", "1,-2,3,1e3,0,1,2,3,4"]
    write(tmp_path, "Made", ".csv", rows, rows, header + "\n")
    with pytest.raises(UserError, match=r"_TRAIN.csv: the first line looks like a header"):
        made(tmp_path)
    rows = [f"1,{COUNTS[:-2]}", *rows]  # counts, with a label that others have
    write(tmp_path / "counts", "Made", ".csv", rows, rows)
    assert made(tmp_path / "counts").num_classes == 2


def test_ts_files_are_read_with_channels_values_and_labels(tmp_path):
    rows = ["1,2,3:-1,-2,-3:walk", "4,5.5,6:7,8,9e1:Run"]
    write(tmp_path, "Made", ".ts", rows, rows[:1], TS)
    data = made(tmp_path)
    train = data.parts["train"]
    assert train.x.tolist() == [
        [[1, 2, 3], [-1, -2, -3]],
        [[4, 5.5, 6], [7, 8, 90]],
    ]
    assert data.class_names == ["Run", "walk"]
    assert train.y.tolist() == [1, 0]


@pytest.mark.parametrize(("suffix", "by"), [(".tsv", "\t"), (".txt", "  "), (".txt", ",")])
def test_tables_have_the_label_first_and_padding_is_removed(tmp_path, suffix, by):
    train = [by.join(["2", "0", "1", "2", "3"]), by.join(["10", "5", "7", "NaN", "NaN"])]
    write(tmp_path, "Made", suffix, train, train)
    data = made(tmp_path)
    assert data.class_names == ["2", "10"]
    assert data.parts["train"].y.tolist() == [0, 1]
    expected = torch.tensor([[[0.0, 1, 2, 3]], [[5, 5 + 2 / 3, 5 + 4 / 3, 7]]])
    torch.testing.assert_close(data.parts["test"].x, expected)


def test_length_is_that_of_the_longest_training_series_unless_set(tmp_path):
    write(tmp_path, "Made", ".tsv", ["1\t0\t1\t2", "2\t0\t1"], ["1\t0\t1\t2\t3\t4"])
    data = made(tmp_path)
    assert data.size == 3
    assert data.parts["test"].x.tolist() == [[[0, 2, 4]]]
    assert "2 of 3 series had 2 to 5 steps and are resampled to 3" in data.notes[0]
    assert made(tmp_path, length=7).parts["test"].x.shape == (1, 1, 7)


def test_resampling_keeps_constants_ramps_ends_and_channels():
    ramp = torch.linspace(-1, 1, 5)
    out = to_length([torch.stack([torch.full((5,), 3.25), ramp]), torch.tensor([[2.0], [4.0]])], 9)
    assert out.shape == (2, 2, 9)
    assert out[0, 0].tolist() == [3.25] * 9
    torch.testing.assert_close(out[0, 1], torch.linspace(-1, 1, 9))
    assert out[1].tolist() == [[2.0] * 9, [4.0] * 9]
    noise = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    shorter = to_length([noise], 13)
    assert shorter[0, 0, [0, -1]].tolist() == noise[0, [0, -1]].tolist()
    assert torch.equal(to_length([noise], 50)[0], noise)


@needs_aeon
@pytest.mark.parametrize(("name", "number"), [("ArrowHead", 1), ("PickupGestureWiimoteZ", 29)])
def test_a_resample_has_the_series_that_aeon_draws(name, number):
    from aeon.benchmarking.resampling import stratified_resample_data
    from aeon.datasets import load_classification

    parts = [
        load_classification(name, split=part, load_equal_length=False) for part in ("train", "test")
    ]
    expected = stratified_resample_data(*parts[0], *parts[1], random_state=number)
    data = UCR(name=name, batch_size=8, val_fraction=0, resample=number)
    data.setup()
    for part, x, y in (("train", *expected[:2]), ("test", *expected[2:])):
        length = data.parts[part].x.shape[-1]
        wanted = to_length([torch.tensor(one, dtype=torch.float32) for one in x], length)
        assert torch.equal(data.parts[part].x, wanted)
        assert [data.class_names[label] for label in data.parts[part].y] == list(y)
    assert f"test: resample {number} of the archive's train and test" in data.protocol


def test_a_resample_has_every_series_once_and_as_many_of_each_class(tmp_path):
    # one class has its label in two forms
    labels = ["1.0"] * 3 + ["1.00"] + ["2.0"] * 6
    lines = [f"{label}\t{value}\t0" for value, label in enumerate(labels)]
    write(tmp_path, "Made", ".tsv", lines[:3] + lines[6:], lines[3:6])
    whole = made(tmp_path, resample=0)
    drawn = [made(tmp_path, resample=number) for number in (1, 2, 1)]
    for data in drawn:
        values = torch.cat([data.parts[part].x[:, 0, 0] for part in ("train", "test")])
        assert sorted(values.tolist()) == list(range(10))
        for part in ("train", "test"):
            assert data.parts[part].y.bincount().tolist() == whole.parts[part].y.bincount().tolist()
    fingerprints = [data.fingerprint for data in (whole, *drawn)]
    assert len(set(fingerprints)) == 3
    assert fingerprints[1] == fingerprints[3]


def test_labels_are_sorted_as_numbers_if_they_are_numbers():
    parts, names = encode_labels(["10", "2", "-1"], ["2"])
    assert names == ["-1", "2", "10"]
    assert [part.tolist() for part in parts] == [[2, 1, 0], [1]]
    assert encode_labels(["b", "10"], ["a"])[1] == ["10", "a", "b"]


@pytest.mark.parametrize(
    "labels",
    [
        ["01", "1"],
        ["1", "1.0"],
        ["01.0", "1.0"],
        ["1.5", "2.0"],
        ["100", "1e2"],
        ["12345678901234567", "12345678901234568"],
        ["1e400", "2e400"],
    ],
)
def test_labels_that_are_different_texts_are_different_classes(labels):
    parts, names = encode_labels(labels, labels)
    assert names == labels
    assert [part.tolist() for part in parts] == [[0, 1], [0, 1]]


def test_a_part_that_writes_whole_numbers_as_decimals_means_whole_numbers():
    parts, names = encode_labels(["1.0000000e+00", "-1.0000000e+00", "1.0000000e+01"], ["10", "1"])
    assert names == ["-1", "1", "10"]
    assert [part.tolist() for part in parts] == [[1, 0, 2], [2, 1]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,?,3:1,2,3:walk", r"Made_TRAIN.ts, line 9: values are missing inside"),
        ("1,2,3:1,2,nan:walk", r"line 9: values are missing inside"),
        ("nan,?:nan,nan:walk", r"line 9: a series without a value"),
        ("1,,3:1,2,3:walk", r"line 9: values are missing inside"),
        ("1,2,3:1,2:walk", r"line 9: .* channels of equal length, got 2 and 3 values"),
        ("1,two:1,2:walk", r"line 9: a series must hold numbers such as 0.5, got 'two' \(data"),
        ("1,2?:1,2:walk", r"line 9: a series must hold numbers such as 0.5, got '2\?'"),
        ("1,2,3:walk", r"line 9: every series .* expected 2 as in .*TRAIN.ts, line 8, got 1"),
        ("1,2,inf:1,2,3:walk", r"line 9: a series must have finite values"),
        ("1,2,1e39:1,2,3:walk", r"line 9: a series must have finite values"),
        ("1,2,3:1,2,3:?", r"line 9: a series must have a label, got '\?'"),
        ("1,2,3:1,2,3:", r"line 9: a series must have a label, got ''"),
    ],
)
def test_bad_series_are_refused_with_their_line(tmp_path, row, message):
    rows = ["1,2,3:4,5,6:Run"]
    write(tmp_path, "Made", ".ts", [*rows, row], rows, TS)
    with pytest.raises(UserError, match=message):
        made(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@data", "", "no line @data"),
        ("@classLabel true walk Run", "@targetlabel true", "not a classification problem"),
        ("@timeStamps false", "@timeStamps true", "has time stamps"),
    ],
)
def test_ts_files_of_another_kind_are_refused(tmp_path, old, new, message):
    rows = ["1,2:1,2:walk", "1,2:1,2:Run"]
    write(tmp_path, "Made", ".ts", rows, rows, TS.replace(old, new))
    with pytest.raises(UserError, match=message):
        made(tmp_path)


def test_empty_file_and_class_without_training_series_are_refused(tmp_path):
    write(tmp_path, "Empty", ".tsv", [], ["1\t0\t1"])
    with pytest.raises(UserError, match="has no series"):
        made(tmp_path, "Empty")
    write(tmp_path, "New", ".tsv", ["1\t0\t1", "2\t0\t1"], ["3\t0\t1"])
    with pytest.raises(UserError, match=r"New_TEST.tsv, line 1: no training .* the label '3'"):
        made(tmp_path, "New")


def numbers(rows, label_of, decimal="."):
    """Lines of a .tsv file with series of three values."""
    values = "\t".join(["0.125", "1.5", "-2.75"]).replace(".", decimal)
    return [f"{label_of(i)}\t{values}" for i in range(rows)]


def test_decimal_commas_are_refused_and_never_read_as_two_values(tmp_path):
    rows = numbers(4, lambda i: i % 2)
    write(tmp_path, "Odd", ".tsv", [*rows, *numbers(1, lambda i: 0, ",")], rows)
    message = r"Odd_TRAIN.tsv, line 5: .* such as 0.5, got '0,125': write decimals with a point"
    with pytest.raises(UserError, match=message):
        made(tmp_path, "Odd")
    write(tmp_path, "Spaces", ".txt", ["1 0,125 1,5", "2 0,5 1,5"], ["1 0,125 1,5"])
    with pytest.raises(UserError, match=r"Spaces_TRAIN.txt, line 1: .* such as 0.5, got '125 1'"):
        made(tmp_path, "Spaces")


@pytest.mark.parametrize(("suffix", "by"), [(".tsv", "\t"), (".csv", ","), (".csv", ";")])
def test_an_empty_cell_is_a_missing_value_and_shifts_nothing(tmp_path, suffix, by):
    full = [by.join("1234"), by.join("2345")]
    write(tmp_path, "Inside", suffix, [*full, by.join(["1", "2", "", "4"])], full)
    with pytest.raises(UserError, match=rf"Inside_TRAIN{suffix}, line 3: values are missing"):
        made(tmp_path, "Inside")
    write(tmp_path, "AtTheEnd", suffix, [*full, by.join(["1", "7", "8", ""])], full)
    assert made(tmp_path, "AtTheEnd").parts["train"].x[2].tolist() == [[7, 7.5, 8]]
    write(tmp_path, "NoLabel", suffix, [*full, by.join(["", "1", "2", "3"])], full)
    with pytest.raises(UserError, match=rf"NoLabel_TRAIN{suffix}, line 3: .* a label, got ''"):
        made(tmp_path, "NoLabel")


def test_between_spaces_every_line_must_have_as_many_values(tmp_path):
    write(tmp_path, "Gap", ".txt", ["1  1  2  3", "2  1     3"], ["1  1  2  3"])
    with pytest.raises(UserError, match=r"Gap_TRAIN.txt, line 2: expected 3 values, as in line 1"):
        made(tmp_path, "Gap")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8", "latin-1", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_the_encoding_of_a_file_changes_no_label_and_no_value(tmp_path, encoding, newline):
    folder = tmp_path / "Made"
    folder.mkdir()
    text = newline.join(["marché\t1\t2", "01\t3\t4", ""])
    for part in ("TRAIN", "TEST"):
        (folder / f"Made_{part}.tsv").write_bytes(text.encode(encoding))
    data = made(tmp_path)
    assert data.class_names == ["01", "marché"]
    assert data.parts["train"].x.tolist() == [[[1, 2]], [[3, 4]]]
    assert data.parts["train"].y.tolist() == [1, 0]


@pytest.mark.parametrize("content", ["1\t2\t3\n".encode("utf-16-le"), b"\xff\xfe1\x00\t"])
def test_other_encodings_are_refused(tmp_path, content):
    write(tmp_path, "Made", ".tsv", ["1\t2\t3"], ["1\t2\t3"])
    (tmp_path / "Made" / "Made_TRAIN.tsv").write_bytes(content)
    with pytest.raises(UserError, match=r"Made_TRAIN.tsv must be text in UTF-8, Latin-1"):
        made(tmp_path)


def test_a_question_mark_is_a_missing_value_only_as_a_whole_value(tmp_path):
    rows = ["1,2,?:3,4,?:walk?", "1,2,3:4,5,6:Run"]
    write(tmp_path, "Made", ".ts", rows, rows, TS)
    data = made(tmp_path)
    assert data.class_names == ["Run", "walk?"]
    assert data.parts["train"].x[0].tolist() == [[1, 1.5, 2], [3, 3.5, 4]]


def test_notes_say_which_series_were_resampled_and_what_the_classes_are(tmp_path):
    rows = ["walk\t0\t1\t2", "sit\t0\t1", "walk\t0\t1\t2", "walk\t0\t1\t2"]
    write(tmp_path, "Made", ".tsv", rows, ["walk\t3\t1\t2"])
    assert made(tmp_path).notes == [
        "1 of 5 series had 2 steps and are resampled to 3 (data.length=…): their durations are "
        "lost.",
        "Classes: 0 = sit (1), 1 = walk (4).",
        "The classes are unbalanced: walk has 4 samples, sit has 1. To answer always walk is right "
        "for 80% of them.",
        "test has no sample of 1 of 2 classes (sit), so it says nothing about them.",
    ]


def test_an_unknown_problem_is_refused_with_those_in_the_folder(tmp_path):
    rows = ["1\t0\t1", "2\t0\t1"]
    write(tmp_path, "Here", ".tsv", rows, rows)
    (tmp_path / "NoTest").mkdir()
    (tmp_path / "NoTest" / "NoTest_TRAIN.tsv").write_text(rows[0])
    for name in ("There", "NoTest"):
        with pytest.raises(UserError, match=rf"'{name}'.*{name}_TEST.*problems Here \(data.name"):
            made(tmp_path, name)


def test_a_wrong_root_is_refused_with_the_expected_and_the_found_files(tmp_path):
    (tmp_path / "readme.md").touch()
    with pytest.raises(UserError, match=r"Made/Made_TRAIN .*found readme.md in .*data.root"):
        made(tmp_path)
    with pytest.raises(UserError, match=r"found no folder .*nowhere"):
        made(tmp_path / "nowhere")


def test_without_root_and_aeon_the_package_to_install_is_named(monkeypatch):
    monkeypatch.setattr(ucr.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"install kd_lightning\[ucr\]"):
        UCR(name="OSULeaf", batch_size=2).setup()


def fake_aeon(monkeypatch, load):
    monkeypatch.setattr(
        ucr.importlib.util,
        "find_spec",
        lambda name: SimpleNamespace(submodule_search_locations=["aeon"]),
    )
    monkeypatch.setitem(sys.modules, "aeon", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "aeon.datasets", SimpleNamespace(load_classification=load))


def test_nothing_is_downloaded_without_request(monkeypatch, tmp_path):
    downloaded = []

    def load(name, extract_path):
        downloaded.append(name)
        rows = ["1\t0\t1", "2\t0\t1"]
        write(tmp_path, name, ".tsv", rows, rows)

    fake_aeon(monkeypatch, load)
    UCR(name="Far", root=str(tmp_path), batch_size=2).prepare_data()
    assert downloaded == []
    data = UCR(name="Far", root=str(tmp_path), batch_size=2, val_fraction=0, download=True)
    data.prepare_data()
    data.prepare_data()
    data.setup()
    assert downloaded == ["Far"]


def test_a_failed_download_is_a_user_error(monkeypatch, tmp_path):
    def load(name, extract_path):
        raise OSError("no route to host")

    fake_aeon(monkeypatch, load)
    data = UCR(name="Far", root=str(tmp_path), batch_size=2, download=True)
    with pytest.raises(UserError, match=r"'Far' could not be downloaded: no route"):
        data.prepare_data()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"length": 1}, "data.length must be 2"), ({"download": True}, r"needs a folder .*data.root")],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        UCR(name="OSULeaf", batch_size=2, **arguments)


@pytest.mark.parametrize("cell", ["1_0", "１２", "−1", "0x10", "1#2", "a"])
@pytest.mark.parametrize(("suffix", "by"), [(".tsv", "\t"), (".csv", ";"), (".ts", ",")])
def test_what_is_no_usual_number_is_refused_with_its_line(tmp_path, cell, suffix, by):
    def line(value):
        cells = by.join(["0", value, "2"])
        return f"{cells}:Run" if suffix == ".ts" else f"1{by}{cells}"

    head = TS if suffix == ".ts" else ""
    write(tmp_path, "Made", suffix, [line("1"), line(cell)], [line("1")], head)
    number = 9 if suffix == ".ts" else 2
    with pytest.raises(UserError, match=rf"line {number}: .* such as 0.5, got '{cell}'"):
        made(tmp_path)


def test_a_refused_cell_is_shown_in_one_short_printable_line(tmp_path):
    write(tmp_path, "Made", ".tsv", ["1\t0\t\x1b[31m" + "x" * 999], ["1\t0\t1"])
    with pytest.raises(UserError, match=r"line 1: .* got '\\x1b\[31mx*…'") as caught:
        made(tmp_path)
    assert str(caught.value).isprintable()

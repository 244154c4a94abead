"""The command on real runs: its numbers are those of the run, and a mistake is one sentence."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from kd_lightning import distill, evaluate
from kd_lightning.evaluation.data_choice import load_data, notes_on_training
from kd_lightning.evaluation.robustness import image_corruptions
from kd_lightning.prepare import prepare

QUIET = ("hardware=cpu", "callbacks=quiet", "logger=none", "threads=1")
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "nll", "ece", "adaptive_ece",
           "overconfidence_error", "confidence_gap", "brier", "aurc", "entropy")  # fmt: skip


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two students of digits, well enough trained to be hurt by corruptions."""
    place = tmp_path_factory.mktemp("digits")
    words = ("method=mutual_learning", "data=digits", "trainer.max_epochs=6", *QUIET)
    return distill(*words, f"run_dir={place / 'run'}").directory


@pytest.fixture(scope="module")
def series_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("series")
    generator = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = generator.normal(size=(120, 2, 24)).astype("float32") + y[:, None, None]
    np.savez(place / "data.npz", x=x, y=y)
    words = ("method=supervised", "data=arrays", f"data.root={place / 'data.npz'}")
    return distill(*words, "trainer.max_epochs=1", "data.batch_size=32", *QUIET,
                   f"run_dir={place / 'run'}").directory  # fmt: skip


def report_of(*words: object) -> dict:
    """The content of ``evaluation.json``."""
    arguments = evaluate.build_parser().parse_intermixed_args([*map(str, words), "--device", "cpu"])
    return evaluate.evaluate(arguments).report


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def written(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes with everything that it can measure."""
    out = tmp_path_factory.mktemp("evaluation") / "all"
    words = [str(digits_run), "--corruptions", "gaussian_noise,contrast,fog"]
    words += ["--ood", "synthetic", "split=val", "--adversarial", "--samples", "40", "--steps", "3"]
    evaluate.main([*words, "--epsilon", "16/255", "--out", str(out), "--device", "cpu"])
    return out


def test_the_metrics_are_those_of_the_run(digits_run: Path, written: Path) -> None:
    report = json.loads((written / "evaluation.json").read_text())
    nets = json.loads((digits_run / "metrics.json").read_text())["nets"]
    assert list(report["students"]) == ["a", "b"]
    for key, found in report["students"].items():
        expected = nets[key]["test"]
        assert {name: found[name] for name in METRICS} == pytest.approx(expected, abs=1e-6)
        assert found["interval"][0] < found["accuracy"] < found["interval"][1]
        assert sum(row["n"] for row in found["classes"]) == found["n"] == 359
    assert report["notes"] == []
    assert (report["data"]["name"], report["data"]["split"]) == ("digits", "test")


def test_the_folder_has_every_table_and_picture(written: Path) -> None:
    stems = ["evaluation", "comparison", "ood", "adversarial"]
    stems += [f"{name}-{key}" for name in ("classes", "corruptions") for key in "ab"]
    expected = {f"{stem}.{ending}" for stem in stems for ending in ("md", "csv")}
    expected |= {f"confusion-{key}.{ending}" for key in "ab" for ending in ("csv", "png")}
    assert {path.name for path in written.iterdir()} == {*expected, "evaluation.json"}
    with Image.open(written / "confusion-a.png") as picture:
        assert min(picture.size) > 400
    rows = read(written / "confusion-b.csv")
    assert sum(int(row[name]) for row in rows for name in row if name.isdigit()) == 359
    assert float(read(written / "evaluation.csv")[0]["interval_low"]) > 0.3


def test_the_pair_agrees_with_the_two_accuracies(written: Path) -> None:
    report = json.loads((written / "evaluation.json").read_text())
    a, b = (report["students"][key]["accuracy"] for key in "ab")
    (row,) = report["comparison"]
    assert (row["student"], row["compared_with"]) == ("b", "a")
    assert row["difference"] == pytest.approx(b - a, abs=1e-6)
    assert row["p"] == row["p_holm"]


def test_the_highest_severity_hurts_a_trained_net_most(written: Path) -> None:
    report = json.loads((written / "evaluation.json").read_text())
    for key in "ab":
        clean, found = report["students"][key]["accuracy"], report["corruptions"][key]
        for kind in ("contrast", "fog"):
            accuracies = [cell["accuracy"] for cell in found["kinds"][kind]]
            assert accuracies[4] < accuracies[0] - 0.05
        noise = [cell["accuracy"] for cell in found["kinds"]["gaussian_noise"]]
        assert noise[4] <= noise[0] + 0.02
        assert found["accuracy"] < clean
        last = read(written / f"corruptions-{key}.csv")[-1]
        assert float(last["accuracy"]) == pytest.approx(found["accuracy"])


def test_the_other_data_and_the_attacks_are_as_asked_for(written: Path) -> None:
    report = json.loads((written / "evaluation.json").read_text())
    assert (report["ood"]["data"]["name"], report["ood"]["data"]["split"]) == ("synthetic", "val")
    scores = report["ood"]["scores"]
    assert [(row["student"], row["score"]) for row in scores[:4]] == [
        *(("a", name) for name in ("max probability", "entropy", "energy")),
        ("b", "max probability"),
    ]
    assert "become 1 x 8 x 8, as the student takes them" in (written / "ood.md").read_text()
    attacks = report["adversarial"]
    assert (attacks["epsilon"], attacks["steps"]) == (pytest.approx(16 / 255), 3)
    for row in attacks["results"]:
        assert row["n"] == 40
        assert row["robust_accuracy"] <= row["accuracy"]


def test_without_names_all_kinds_are_measured(digits_run: Path) -> None:
    file = digits_run / "students" / "b" / "student.safetensors"
    (found,) = report_of(file, "data=digits", "split=val", "--corruptions")["corruptions"].values()
    assert list(found["kinds"]) == list(image_corruptions.KINDS)


def test_files_of_one_name_are_compared_with_the_first(digits_run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(digits_run / "students" / "a", tmp_path / "copied")
    report = report_of(
        digits_run / "students" / "b", copy, digits_run / "students/a", "data=digits"
    )
    assert list(report["students"]) == ["b", "copied", "a"]
    first, second = report["comparison"]
    assert (first["gained"], first["lost"]) == (second["gained"], second["lost"])
    assert first["p_holm"] == pytest.approx(min(1, 2 * first["p"]))
    again = report_of(copy, copy, "data=digits")
    assert list(again["students"]) == ["copied", "copied'"]
    assert again["comparison"][0]["p"] == 1


def test_the_split_is_chosen_and_what_was_trained_on_is_said(digits_run: Path) -> None:
    seen = {
        "train": (1295, "were trained on it"),
        "val": (143, "whose weights were chosen on it"),
        "all": (1797, "were trained on parts of it"),
    }
    for split, (count, why) in seen.items():
        report = report_of(digits_run, f"split={split}", "--student", "b")
        assert report["data"]["n"] == count
        (note,) = report["notes"]
        assert note.startswith(f"split={split} is no test for b, ")
        assert note.endswith(f"{why}.")
    (note,) = report_of(digits_run, "data.split_seed=3", "--student", "b")["notes"]
    assert note.startswith("b: trained on digits with other samples or another split")


def test_the_same_samples_are_known_under_another_name(digits_run: Path) -> None:
    data = load_data(["data=digits", "split=train"])
    (a,) = evaluate.load_subjects([digits_run], "a", [])
    renamed = replace(a, trained_on=("streamed", a.trained_on[1]))
    assert notes_on_training(data, [renamed]) == notes_on_training(data, [a]) != []


def test_photographs_are_turned_as_the_students_saw_them(tmp_path: Path, write_tree) -> None:
    tree = write_tree(tmp_path, {"train/cat": 8, "train/dog": 8, "test/cat": 2, "test/dog": 2})
    words = ["data=image_folder", f"data.root={tree}"]
    assert load_data(words).data.exif is True
    assert load_data(words, exif=False).data.exif is False
    assert load_data([*words, "data.exif=true"], exif=False).data.exif is True
    students = [SimpleNamespace(exif=exif) for exif in (False, False, True)]
    assert evaluate.common_exif(students[:2]) is False
    assert evaluate.common_exif(students) is None


def test_students_of_one_name_are_told_apart_by_their_run(digits_run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(digits_run, tmp_path / "other")
    subjects = evaluate.load_subjects([run / "students/a" for run in (digits_run, other)], None, [])
    assert [subject.name for subject in subjects] == ["a", "other/a"]


def test_a_folder_that_cannot_be_made_is_seen_before_anything_is_computed(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.txt").touch()
    with pytest.raises(SystemExit) as ended:
        evaluate.main([str(digits_run), "--out", str(tmp_path / "results.txt" / "x")])
    assert ended.value.code == 2
    assert "(--out=…)" in capsys.readouterr().err


def test_image_files_are_evaluated_as_the_run_did(image_run: Path) -> None:
    report = report_of(image_run)
    nets = json.loads((image_run / "metrics.json").read_text())["nets"]
    for key in "ab":
        found = {name: report["students"][key][name] for name in METRICS}
        assert found == pytest.approx(nets[key]["test"], abs=1e-5)


@pytest.mark.filterwarnings("default::UserWarning")  # that a file is skipped
def test_files_that_cannot_be_read_are_not_counted(image_run: Path, tmp_path: Path) -> None:
    photos = shutil.copytree(image_run.parent / "photos", tmp_path / "photos")
    damaged = min((photos / "test" / "cat").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:100])
    words = ["data=image_folder", f"data.root={photos}", "data.on_bad_image=skip"]
    report = report_of(image_run, *words, "--ood", *words)
    assert report["data"]["n"] == report["ood"]["data"]["n"] == report["students"]["a"]["n"] == 13
    assert "1 of 14 files could not be read and are left out." in report["notes"]


def test_classes_are_found_by_name_in_any_order(
    image_run: Path, write_tree, tmp_path: Path
) -> None:
    own = image_run.parent / "photos" / "test"
    for old, new in (("cat", "dog"), ("dog", "cat")):  # turned: all that was right is wrong
        shutil.copytree(own / old, tmp_path / "turned" / "train" / new)
    words = ("data=image_folder", f"data.root={tmp_path / 'turned'}", "split=all")
    words += ("data.num_workers=0",)
    right, turned = (report_of(image_run, *w, "--student", "a") for w in ((), words))
    accuracies = [r["students"]["a"]["accuracy"] for r in (right, turned)]
    assert sum(accuracies) == pytest.approx(1)
    assert turned["notes"][-1] == (
        "a: trained on image_folder with other samples or another split, so some of these samples "
        "may have been in the train part."
    )


@pytest.fixture(scope="module")
def prepared(image_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image files of ``image_run``, decoded to the side of its evaluation: less than 256."""
    out = tmp_path_factory.mktemp("prepared") / "photos"
    words = ["data=image_folder", f"data.root={image_run.parent / 'photos'}", f"out={out}"]
    prepare(*words, "data.image_size=16", "data.num_workers=0", "data.val_fraction=0.3")
    return out


def test_prepared_images_are_evaluated_as_their_files(image_run: Path, prepared: Path) -> None:
    words = ("data=prepared", f"data.root={prepared}", "data.num_workers=0")
    report = report_of(image_run, *words, "--student", "a")
    test = json.loads((image_run / "metrics.json").read_text())["nets"]["a"]["test"]
    assert {name: report["students"]["a"][name] for name in METRICS} == pytest.approx(
        {name: test[name] for name in METRICS}, abs=1e-5
    )


@pytest.mark.parametrize("word", ["data.image_size=32", "data.crop_fraction=1", "data.resize=crop"])
def test_what_the_prepared_images_fix_is_refused(
    word: str, image_run: Path, prepared: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([str(image_run), "data=prepared", f"data.root={prepared}", word])
    assert stopped.value.code == 2
    key = word.partition("=")[0]
    assert capsys.readouterr().err.startswith(f"Error: {key} has no effect on an evaluation")


def test_series_are_corrupted_too(series_run: Path) -> None:
    report = report_of(series_run, "--corruptions", "missing_channels,drift")
    (found,) = report["corruptions"].values()
    assert list(found["kinds"]) == ["missing_channels", "drift"]
    assert all(0 <= cell["accuracy"] <= 1 for cell in found["kinds"]["drift"])


def test_without_a_folder_nothing_is_written(
    digits_run: Path, capsys: pytest.CaptureFixture
) -> None:
    before = sorted(digits_run.rglob("*"))
    evaluate.main([str(digits_run), "--student", "b", "--device", "cpu"])
    said = capsys.readouterr().out
    assert "digits, test part: 359 samples" in said
    assert "most confused with" in said
    assert "Not written: name a folder for it (--out)." in said
    assert sorted(digits_run.rglob("*")) == before


def test_a_student_is_chosen_of_runs_and_files_stand_for_themselves(digits_run: Path) -> None:
    file = digits_run / "students" / "a" / "student.safetensors"
    assert list(report_of(digits_run, file, "--student", "b")["students"]) == ["run/b", "a"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{file}"], "a student file has no data with it: say on which to evaluate (data=…)"),
        (["data=digits"], "name a run or a student file to evaluate, got only data=digits"),
        (["{run}", "split=tset"], "unknown split 'tset': did you mean test"),
        (["{run}", "data.rot=x"], "unknown key 'data.rot': did you mean data.root"),
        (["{run}", "data=digitss"], "unknown data 'digitss': did you mean digits"),
        (
            ["{run}", "data.batch_size=many"],
            "data.batch_size must be a whole number >= 1, got many",
        ),
        (["{run}", "data.val_fraction=0", "split=val"], "these data have no val part"),
        (["{run}", "data=synthetic"], "every class of the data must be one of a's, by name"),
        (["{run}", "--student", "c"], "unknown student of"),
        (["{run}", "--corruptions", "fogg"], "unknown corruption of image samples 'fogg'"),
        (["{run}", "--ood", "fashion"], "unknown data 'fashion': did you mean fashion_mnist"),
        (["{run}", "--adversarial", "pgdd"], "unknown attack 'pgdd'"),
        (["{run}", "--epsilon", "1/9"], "--epsilon has no effect without --adversarial"),
        (["{run}", "--epsilon", "8/0"], "--epsilon: invalid fraction value: '8/0'"),
        (["{run}", "--steps", "3"], "--steps has no effect without --adversarial"),
        (["{run}", "--samples", "9"], "--samples has no effect without --adversarial"),
        (["{run}", "--adversarial", "fgsm", "--steps", "3"], "--steps has no effect without the"),
        (["{run}", "--config-dir", "conf"], "--config-dir has no effect without data=… or --ood"),
        (["{run}", "--out", "{run}"], "expected a new or an empty folder for the results"),
        (["{run}", "--device", "gpu7"], "--device must be auto, cpu or a GPU"),
        (["{series}", "--adversarial"], "--adversarial is for images"),
        (["{series}", "data=digits"], "every class of the data must be one of "),
        (["{photos}", "data.resize=squash"], "data.resize has no effect on an evaluation"),
        (["nowhere"], "which does not exist"),
    ],
)
def test_a_mistake_is_one_sentence_with_exit_code_2(
    words: list[str],
    sentence: str,
    digits_run: Path,
    series_run: Path,
    image_run: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    places = {"run": digits_run, "series": series_run, "photos": image_run}
    places["file"] = digits_run / "students" / "a" / "student.safetensors"
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([word.format(**places) for word in words])
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.startswith("Error: ")
    assert err.count("\n") == 1


def test_help_needs_no_torch() -> None:
    program = (
        "import sys; from kd_lightning import evaluate; parser = evaluate.build_parser(); "
        "parser.format_help(); assert not {'torch', 'timm', 'lightning'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_results_do_not_depend_on_the_state_of_the_generator(digits_run: Path) -> None:
    words = (digits_run, "--student", "b", "--corruptions", "snow", "--adversarial", "pgd")
    torch.manual_seed(0)
    first = report_of(*words, "--samples", 20)
    torch.manual_seed(1)
    assert report_of(*words, "--samples", 20) == first

"""Which samples a net got right, and the intervals that need it."""

import csv

import numpy as np
import pytest
import torch
from made_sweeps import job, metrics, settings

from kd_lightning import reports
from kd_lightning.evaluation import test_records
from kd_lightning.reports import correctness
from kd_lightning.reports.statistics import two_way_interval

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 1], np.int32)
HEAD = "with other test samples"
PAIRS = [["kd", "labels"]]


def predictions(right, labels=LABELS):
    """Predictions of which these are right."""
    return {"labels": labels, "a/predicted": np.where(right, labels, (labels + 1) % 3)}


@pytest.fixture
def right():
    """Row -> seeds -> whether its net is right, for ten samples."""
    random = np.random.default_rng(1)
    return {name: random.random((3, 10)) < share for name, share in (("kd", 0.8), ("labels", 0.5))}


@pytest.fixture
def sweep(tmp_path, right):
    folder = tmp_path / "sweep"
    for name, of_seeds in right.items():
        for seed, values in enumerate(of_seeds):
            outcome = metrics({"a": float(values.mean())}, 0.5, seed=seed)
            made = job(folder, name, {"variant": name, "seed": seed}, outcome)
            np.savez(made.directory / correctness.PREDICTIONS, **predictions(values))
    return settings(folder, pairs=PAIRS)


def pairs_of(folder):
    (table,) = [t for t in reports.build([folder]).tables if t.name == "pairs"]
    return table


def test_a_pair_has_the_interval_over_seeds_and_samples(sweep, right):
    table = pairs_of(sweep)
    low, high = two_way_interval(right["kd"].astype(int) - right["labels"])
    assert table.rows[0][table.heads.index(HEAD)] == (
        f"{100 * low:+.2f} to {100 * high:+.2f}".replace("-", "−")
    )
    assert any(note.startswith("With other test samples: ") for note in table.notes)


def test_a_written_report_makes_the_same_files_again(sweep, tmp_path):
    reports.write(reports.build([sweep]), tmp_path / "out")
    again = reports.write(reports.build([tmp_path / "out"]), tmp_path / "again")
    assert tmp_path / "again" / correctness.FILE in again
    for path in again:
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name
    (row,) = csv.DictReader((tmp_path / "out" / "pairs.csv").read_text().splitlines())
    interval = two_way_interval_of(sweep)
    assert [float(row[f"{end}_with_test"]) for end in ("low", "high")] == pytest.approx(interval)


def two_way_interval_of(sweep):
    (difference,) = reports.build([sweep]).differences
    return difference.interval_with_test


def test_joined_reports_keep_what_their_nets_got_right(sweep, tmp_path):
    reports.write(reports.build([sweep]), tmp_path / "out")
    for seed in (3, 4):
        outcome = metrics({"a": 0.9}, 0.5, seed=seed)
        made = job(tmp_path / "more", "kd", {"variant": "kd", "seed": seed}, outcome)
        np.savez(made.directory / correctness.PREDICTIONS, **predictions(LABELS < 2))
    joined = reports.build([tmp_path / "out", tmp_path / "more"])
    assert [bool(result.correct.nets) for result in joined.source.results] == [True] * 8
    assert two_way_interval_of(sweep) == joined.differences[0].interval_with_test


def test_what_was_written_is_read_again(tmp_path, right):
    test = b"\x0a" + bytes(7) + b"12345678"  # ten samples, and a digest
    first, second, _ = right["kd"]
    jobs = [
        correctness.Correct(test, {"a": first}),
        correctness.Correct(),
        correctness.Correct(test, {"a": second, "b": ~second}),
    ]
    correctness.write(tmp_path / "correct.npz", jobs)
    for job_read, made in zip(correctness.read(tmp_path / "correct.npz", 3), jobs, strict=True):
        assert job_read.test == made.test
        assert job_read.nets.keys() == made.nets.keys()
        for name, bits in made.nets.items():
            np.testing.assert_array_equal(job_read.nets[name], bits)
    correctness.write(tmp_path / "correct.npz", [correctness.Correct()])
    assert not (tmp_path / "correct.npz").exists()


def replace_predictions(sweep, number, **arrays):
    path = sweep / "jobs" / f"{number:04d}" / correctness.PREDICTIONS
    with np.load(path) as file:
        np.savez(path.with_suffix(""), **{**file, **arrays})


def other_samples(sweep):
    labels = LABELS[::-1]
    with np.load(sweep / "jobs" / "0000" / correctness.PREDICTIONS) as file:
        right = file["a/predicted"] == file["labels"]
    replace_predictions(sweep, 0, **predictions(right, labels))


def other_resample(sweep):
    for number in (0, 1):
        config = sweep / "jobs" / f"{number:04d}" / "config.yaml"
        config.write_text(config.read_text().replace("data:", "data:\n  resample: 1"))


def other_accuracy(sweep):
    replace_predictions(sweep, 0, **predictions(np.zeros(10, bool)))


def no_file(sweep):
    (sweep / "jobs" / "0005" / correctness.PREDICTIONS).unlink()


def no_archive(sweep):
    (sweep / "jobs" / "0005" / correctness.PREDICTIONS).write_text("x")


def another_net(sweep):
    path = sweep / "jobs" / "0005" / correctness.PREDICTIONS
    np.savez(path.with_suffix(""), labels=LABELS, **{"b/predicted": LABELS})


@pytest.mark.parametrize(
    "change",
    [other_samples, other_resample, other_accuracy, no_file, no_archive, another_net],
)
def test_without_the_answers_to_the_same_samples_there_is_no_such_interval(sweep, change):
    change(sweep)
    assert HEAD not in pairs_of(sweep).heads


def test_the_predictions_of_a_run_are_read(tmp_path):
    logits = torch.eye(3)[[0, 1, 1, 0]]  # right, right, wrong, wrong
    arrays = test_records.predictions_of({"a": logits}, torch.tensor([0, 1, 2, 1]))
    np.savez(tmp_path / test_records.PREDICTIONS, **arrays)
    correct = correctness.of_run(tmp_path)
    assert correct.nets["a"].tolist() == [True, True, False, False]

"""What is logged has the same names everywhere, and these are the names in the pages' tables. That
they are for each method is tested with the whole runs of ``methods/test_contract.py``.
"""

from pathlib import Path

import pytest
from helpers import of_method
from logged_names import documented, generalised, names_in_csv
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from written_runs import read_wandb

from kd_lightning import distill
from kd_lightning.trackers.results import files_of, results_of


def test_without_a_val_part_the_names_of_val_are_not_there(tiny: list[str]) -> None:
    result = distill("method=kd", *tiny, "logger=csv", "data.val_fraction=0",
                     "trainer.log_every_n_steps=2")  # fmt: skip
    logged = generalised(names_in_csv(result.directory), ["student"])
    assert logged == documented("kd", val=False)


def test_what_is_scaled_has_its_names_where_it_is_asked_for(tiny: list[str]) -> None:
    result = distill("method=kd", *tiny, "logger=csv", "evaluation.temperature_scaling=true",
                     "trainer.log_every_n_steps=2")  # fmt: skip
    logged = generalised(names_in_csv(result.directory), ["student"])
    assert logged == documented("kd", val=True, scaled=True)


def test_what_students_make_together_has_the_same_names(tiny: list[str]) -> None:
    more = [f"+method.students.{key}=${{method.students.student}}" for key in "bc"]
    result = distill("method=supervised", *of_method("supervised", tiny), *more, "logger=csv",
                     "evaluation.soups=true", "trainer.log_every_n_steps=2")  # fmt: skip
    names = names_in_csv(result.directory)
    assert generalised(names, ["student", "b", "c"]) == documented("supervised", val=True)
    assert {name for name in names if "/vote/" in name} == {"test/vote/accuracy"}
    assert {"test/uniform_soup/nll", "test/greedy_soup/accuracy"} <= names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mlflow's own
def test_several_loggers_at_once_have_the_same_names(tiny: list[str], tmp_path: Path) -> None:
    result = distill("method=dual_student", *tiny, "logger=[csv,tensorboard,wandb,mlflow]",
                     "trainer.log_every_n_steps=2")  # fmt: skip
    expected = names_in_csv(result.directory)
    assert "test/ensemble/agreement" in expected
    events = EventAccumulator(str(result.directory / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == expected
    assert read_wandb(result.directory).names == expected
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (kept,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert set(kept.data.metrics) == expected


def test_results_are_all_that_test_measured_under_names_that_every_tracker_takes() -> None:
    measured = {"accuracy": 0.5, "nll": 1.0}
    metrics = {
        "objective": None,
        "nets": {
            "teacher": {"test": measured},
            "a": {"test": measured, "last": measured, "agreement": 0.25,
                  "scaled": {"temperature": 2.0, "nll": 0.75}},
            "a, labels only": {"test": measured, "agreement": 0.75},
        },
    }  # fmt: skip
    assert results_of(metrics) == {
        "test/teacher/accuracy": 0.5,
        "test/teacher/nll": 1.0,
        "test/a/accuracy": 0.5,
        "test/a/nll": 1.0,
        "last/a/accuracy": 0.5,
        "last/a/nll": 1.0,
        "scaled/a/temperature": 2.0,
        "scaled/a/nll": 0.75,
        "test/a/agreement": 0.25,
        "test/a_labels_only/accuracy": 0.5,
        "test/a_labels_only/nll": 1.0,
        "test/a_labels_only/agreement": 0.75,
    }
    assert results_of({"objective": 0.5, "nets": {}}) == {"objective": 0.5}


def test_plots_are_kept_with_the_table(tmp_path: Path) -> None:
    (tmp_path / "heatmap.png").touch()
    (tmp_path / "last.ckpt").touch()
    kept = [path.name for path in files_of(tmp_path)]
    assert kept == [
        *("table.md", "table.csv", "metrics.json", "calibration.json", "config.yaml"),
        "heatmap.png",
    ]

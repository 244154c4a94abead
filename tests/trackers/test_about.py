"""What a tracker is told of a run, and what is remembered of it."""

from pathlib import Path

from kd_lightning.trackers.about import name_of, remember, remembered


def test_a_job_is_named_by_what_varies_in_its_sweep() -> None:
    axes = {"method.temperature": 2.0, "seed": 0}
    assert name_of(axes, ["method=kd", "seed=0"], Path("0003")) == "method.temperature=2.0 seed=0"


def test_a_bare_run_is_named_by_the_overrides_that_make_it_what_it_is() -> None:
    overrides = ["method=kd", "+model@method.students.b=mlp", "~data.augmentation", "logger=[csv]",
                 "logger.wandb.project=x", "callbacks@callbacks=quiet", "outputs=/tmp/x",
                 "run_dir=y", "resume=z", "seed=1"]  # fmt: skip
    shown = "method=kd +model@method.students.b=mlp ~data.augmentation seed=1"
    assert name_of({}, overrides, Path("d")) == shown


def test_a_run_without_either_is_named_by_its_directory() -> None:
    assert name_of({}, ["logger=wandb"], Path("outputs/2026_kd_1f2e")) == "2026_kd_1f2e"


def test_a_run_directory_remembers(tmp_path: Path) -> None:
    assert remembered(tmp_path, "wandb") is None
    remember(tmp_path, "wandb", "abc")
    remember(tmp_path, "name", "seed=1")
    remember(tmp_path, "wandb", "def")
    assert remembered(tmp_path, "wandb") == "def"
    assert remembered(tmp_path, "name") == "seed=1"
    assert len(list(tmp_path.iterdir())) == 1

"""The name of a run in a tracker, and the values stored for a resumed run."""

from pathlib import Path

from kd_lightning.trackers.run_info import load_value, run_name, save_value


def test_a_job_is_named_by_the_values_that_vary_in_its_sweep() -> None:
    axes = {"method.temperature": 2.0, "seed": 0}
    assert run_name(axes, ["method=kd", "seed=0"], Path("0003")) == "method.temperature=2.0 seed=0"


def test_a_single_run_is_named_by_the_overrides_that_change_its_results() -> None:
    overrides = ["method=kd", "+model@method.students.b=mlp", "~data.augmentation", "logger=[csv]",
                 "logger.wandb.project=x", "callbacks@callbacks=quiet", "outputs=/tmp/x",
                 "run_dir=y", "resume=z", "seed=1"]  # fmt: skip
    shown = "method=kd +model@method.students.b=mlp ~data.augmentation seed=1"
    assert run_name({}, overrides, Path("d")) == shown


def test_a_run_without_either_is_named_by_its_directory() -> None:
    assert run_name({}, ["logger=wandb"], Path("outputs/2026_kd_1f2e")) == "2026_kd_1f2e"


def test_values_are_stored_in_the_run_directory(tmp_path: Path) -> None:
    assert load_value(tmp_path, "wandb") is None
    save_value(tmp_path, "wandb", "abc")
    save_value(tmp_path, "name", "seed=1")
    save_value(tmp_path, "wandb", "def")
    assert load_value(tmp_path, "wandb") == "def"
    assert load_value(tmp_path, "name") == "seed=1"
    assert {path.name for path in tmp_path.iterdir()} == {"trackers.json", "SHA256SUMS"}

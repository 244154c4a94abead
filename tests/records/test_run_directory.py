import itertools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers import compose
from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import UserError
from kd_lightning.records import run_directory
from kd_lightning.records.resumed_config import (
    load_resumed_config,
    take_missing,
    with_data_of_run,
)
from kd_lightning.records.run_directory import (
    RUN_DIR_VARIABLE,
    best_student,
    holding,
    make_directory,
    make_run_directory,
)
from kd_lightning.teachers.other_runs import run_and_student
from kd_lightning.teachers.unused_keys import check_overrides


def config(outputs: Path, **more) -> DictConfig:
    return OmegaConf.create({"outputs": str(outputs), "run_dir": None, "resume": None, **more})


@pytest.fixture(autouse=True)
def _restore_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_DIR_VARIABLE, "")  # restored after the test


def test_runs_of_the_same_instant_never_share_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # all in the same second, with so few names that almost each one drawn exists already
    names = itertools.cycle(f"{i:04x}" for i in range(64) for _ in range(2))
    monkeypatch.setattr(run_directory.time, "strftime", lambda _: "2026-01-01_00-00-00")
    monkeypatch.setattr(run_directory.secrets, "token_hex", lambda _: next(names))
    directories: list[Path] = []
    barrier = threading.Barrier(32)

    def work() -> None:
        barrier.wait()
        for _ in range(2):
            directories.append(make_run_directory(config(tmp_path), "kd-digits"))

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(directories) == len(set(directories)) == 64
    assert all(directory.is_dir() for directory in directories)


def test_processes_of_the_same_instant_never_share_a_directory(tmp_path: Path) -> None:
    program = f"""
from omegaconf import OmegaConf
from kd_lightning.records import run_directory
run_directory.secrets.token_hex = lambda _, names=iter("0123456789" * 99): next(names)
run_directory.time.strftime = lambda _: "now"
cfg = OmegaConf.create({{"outputs": {str(tmp_path)!r}, "run_dir": None, "resume": None}})
for _ in range(2):
    print(run_directory.make_run_directory(cfg, "run"))
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    names = [line for process in processes for line in process.communicate()[0].splitlines()]
    assert len(names) == len(set(names)) == len(list(tmp_path.iterdir())) == 8


def test_the_name_has_the_time_and_the_title(tmp_path: Path) -> None:
    directory = make_run_directory(config(tmp_path / "deep" / "outputs"), "kd-digits")
    assert directory.parent == tmp_path / "deep" / "outputs"
    stamp, title, token = directory.name.rsplit("_", 2)
    assert title == "kd-digits"
    assert len(stamp) == len("2026-01-01_00-00-00")
    assert int(token, 16) >= 0


def test_further_ranks_find_the_directory_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_run_directory(config(tmp_path), "kd-digits")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert make_run_directory(config(tmp_path), "kd-digits") == first.resolve()
    assert list(tmp_path.iterdir()) == [first]


def test_the_next_run_of_a_process_gets_its_own_directory(tmp_path: Path) -> None:
    assert make_run_directory(config(tmp_path), "a") != make_run_directory(config(tmp_path), "a")
    assert os.environ[RUN_DIR_VARIABLE]


def test_a_given_directory_is_made_and_used_once(tmp_path: Path) -> None:
    cfg = config(tmp_path, run_dir=str(tmp_path / "mine" / "one"))
    directory = make_run_directory(cfg, "unused")
    assert directory == tmp_path / "mine" / "one"
    assert make_run_directory(cfg, "unused") == directory  # it is still empty
    (directory / "config.yaml").touch()
    with pytest.raises(UserError, match=r"one already contains a run: resume it with resume=…"):
        make_run_directory(cfg, "unused")


def test_a_run_is_held_by_one_process(tmp_path: Path) -> None:
    with (
        holding(tmp_path),
        pytest.raises(UserError, match="another process is at the run in"),
        holding(tmp_path),
    ):
        pytest.fail("held twice")
    with holding(tmp_path):
        pass


def test_a_resumed_run_stays_where_it_is(tmp_path: Path) -> None:
    cfg = config(tmp_path, resume=str(tmp_path / "old"))
    (tmp_path / "old").mkdir()
    assert make_run_directory(cfg, "unused") == tmp_path / "old"
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_the_error_for_a_folder_that_cannot_be_made_has_the_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"cannot make the folder .*file.*\(run_dir=…\)"):
            make_directory(folder, "run_dir")
    with pytest.raises(UserError, match=r"\(outputs=…\)"):
        make_run_directory(config(tmp_path / "file"), "kd-digits")


# Resuming


OLD = {
    "seed": 0,
    "method": {"temperature": 4.0},
    "data": {"_target_": "kd_lightning.data.synthetic.Synthetic", "root": "/old", "batch_size": 8},
    "trainer": {"max_epochs": 2},
    "hardware": {"devices": 1},
    "task": {"num_classes": 3},
    "evaluation": {"plots": False},
    "callbacks": {
        "progress": {"_target_": "kd_lightning.callbacks.progress.RunProgress"},
        "early_stopping": {"patience": 3},
    },
}


def composed(*overrides: str) -> DictConfig:
    """The configuration that the command that resumes composes."""
    dotted = [override.lstrip("+") for override in overrides]
    return OmegaConf.merge(OmegaConf.create(OLD), OmegaConf.from_dotlist(dotted))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    OmegaConf.save(OmegaConf.create(OLD), tmp_path / "config.yaml")
    return tmp_path


def test_a_resumed_run_has_its_own_configuration(old: Path) -> None:
    other_defaults = composed("seed=5", "method.temperature=1")
    cfg = load_resumed_config(old, other_defaults, [f"resume={old}"])
    assert (cfg.seed, cfg.method.temperature, cfg.resume) == (0, 4.0, str(old))


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("trainer.max_epochs=9", 9),
        ("hardware.devices=2", 2),
        ("data.root=/new", "/new"),
        ("+data.num_workers=3", 3),
        ("evaluation.plots=true", True),
    ],
)
def test_keys_that_do_not_change_what_is_learnt_may_change(override: str, value, old: Path) -> None:
    cfg = load_resumed_config(old, composed(override), [override])
    assert OmegaConf.select(cfg, override.lstrip("+").split("=")[0]) == value


@pytest.mark.parametrize(
    "override",
    [
        *("seed=1", "method.temperature=2.0", "data.batch_size=4"),
        "callbacks.early_stopping.patience=9",
    ],
)
def test_keys_that_change_what_is_learnt_are_refused(override: str, old: Path) -> None:
    with pytest.raises(UserError, match=f"'{override}' would change what the resumed run learns"):
        load_resumed_config(old, composed(override), [override])


def test_the_data_set_of_a_resumed_run_is_known(old: Path) -> None:
    """So that the keys of its data set are, whatever the command's default data set is."""
    words = ["threads=1", f"resume={old}", "data.on_bad_image=skip"]
    assert with_data_of_run(words) == ["threads=1", "data=synthetic", *words[1:]]
    quoted = f"resume='{old}'"
    assert with_data_of_run([quoted]) == ["data=synthetic", quoted]
    for unchanged in (["data=digits", *words], ["data.root=x"], ["resume=/nowhere"]):
        assert with_data_of_run(unchanged) == unchanged


def test_another_data_set_is_refused_in_a_short_sentence(old: Path) -> None:
    load_resumed_config(old, composed(), ["data=synthetic"])
    cfg = composed()
    cfg.data._target_ = "kd_lightning.data.digits.Digits"
    refused = "'data=digits' would change what the resumed run learns: leave it out"
    with pytest.raises(UserError, match=refused):
        load_resumed_config(old, cfg, ["data=digits"])


def test_values_that_the_command_lacks_are_those_of_the_run(old: Path) -> None:
    cfg = composed()
    cfg.data.root, cfg.method.temperature = "???", "???"
    cfg.resume = str(old)
    take_missing(cfg)
    of_run = OmegaConf.load(old / "config.yaml")
    assert (cfg.data.root, cfg.method.temperature) == (of_run.data.root, of_run.method.temperature)


def test_a_resumed_run_is_not_shortened(old: Path) -> None:
    with pytest.raises(UserError, match="of a resumed run must be >= 2, as before, got 1"):
        load_resumed_config(old, composed("trainer.max_epochs=1"), ["trainer.max_epochs=1"])


@pytest.mark.parametrize("override", ["experiment=demo", "recipe=digits"])
def test_choices_that_a_run_directory_does_not_store_cannot_be_set(
    override: str, old: Path
) -> None:
    with pytest.raises(UserError, match=f"'{override}' cannot be set when a run is resumed"):
        load_resumed_config(old, composed(), [override])


def test_the_progress_display_may_change_and_other_callbacks_may_not(old: Path) -> None:
    cfg = composed()
    cfg.callbacks = {"early_stopping": {"patience": 3}}  # as callbacks=quiet would do
    assert set(load_resumed_config(old, cfg, ["callbacks=quiet"]).callbacks) == {"early_stopping"}
    cfg.callbacks = {"progress": {"_target_": "new"}}
    with pytest.raises(
        UserError, match="'callbacks=default' would change what the resumed run learns"
    ):
        load_resumed_config(old, cfg, ["callbacks=default"])


def test_an_override_with_the_same_value_is_accepted(old: Path) -> None:
    assert load_resumed_config(old, composed("seed=0"), ["seed=0"]).seed == 0


def test_an_older_run_without_evaluation_gets_the_new_one(tmp_path: Path) -> None:
    older = {key: value for key, value in OLD.items() if key != "evaluation"}
    OmegaConf.save(OmegaConf.create(older), tmp_path / "config.yaml")
    assert load_resumed_config(tmp_path, composed(), []).evaluation == {"plots": False}


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no run directory: expected config.yaml in it"):
        load_resumed_config(tmp_path, composed(), [])


@pytest.mark.parametrize("override", ["teacher.seed=1", "+teacher.x=1", "method.teacher.depth=8"])
def test_a_teacher_of_a_method_without_one_is_refused(override: str) -> None:
    cfg = OmegaConf.create({"method": {"_target_": "methods.alone.Alone", "students": {}}})
    with pytest.raises(UserError, match=r"has no effect: method=alone has no teacher"):
        check_overrides(cfg, ["seed=1", override])
    with_teacher = {"method": {"teacher": {}}, "teacher": {"source": "train"}}
    check_overrides(OmegaConf.create(with_teacher), [override])


def test_a_net_that_comes_from_a_run_is_not_changed(tmp_path: Path) -> None:
    cfg = OmegaConf.create({"method": {"teacher": {}}, "teacher": {"source": str(tmp_path)}})
    check_overrides(cfg, ["method.teacher.dropout=0.1", "model@method.teacher=mlp"])
    said = rf"^method.teacher.mean=\[0.5\] has no effect: teacher.source={tmp_path} is a run"
    with pytest.raises(UserError, match=said):
        check_overrides(cfg, ["method.teacher.mean=[0.5]"])
    (tmp_path / "model.safetensors").touch()  # a file of weights, which takes them all
    check_overrides(cfg, ["method.teacher.mean=[0.5]"])


def test_a_folder_named_train_is_no_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train").mkdir()
    monkeypatch.chdir(tmp_path)  # as with data.root=.
    cfg = OmegaConf.create({"method": {"teacher": {}}, "teacher": {"source": "train"}})
    check_overrides(cfg, ["method.teacher.mean=[0.5]"])
    assert run_and_student(Path("train")) == (Path("train"), None)


def test_an_older_run_is_resumed_as_it_was(tmp_path: Path) -> None:
    """Its images were not turned by EXIF, and its nets have none of the newer keys."""
    words = ["method=kd", "data=image_folder", "data.root=/photos"]
    now = compose(*words)
    old = OmegaConf.create(OmegaConf.to_container(now, resolve=True))
    for name in ("exif", "on_leak"):
        old.data.pop(name)
    for net in (old.method.teacher, old.method.students.student):
        for name in ("weights_key", "interpolation"):
            net.pop(name)
    OmegaConf.save(old, tmp_path / "config.yaml")
    resumed = load_resumed_config(tmp_path, now, [*words, "data.on_leak=ignore"])
    assert resumed.data.exif is False
    assert "interpolation" not in resumed.method.teacher


@pytest.mark.parametrize(("noise", "expected"), [(0.4, True), (0.0, False)])
def test_val_of_an_older_run_has_its_wrong_labels_when_it_is_resumed(
    noise: float, expected: bool, tmp_path: Path
) -> None:
    cfg = compose("data=digits", f"data.label_noise={noise}", "+task={num_classes: 10}")
    before = cfg.copy()
    del before.data.noisy_val
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(before, resolve=True))
    resumed = load_resumed_config(tmp_path, cfg, [f"resume={tmp_path}"])
    assert resumed.data.get("noisy_val", False) is expected


def test_the_best_student_is_so_by_what_its_weights_were_chosen_by(tmp_path: Path) -> None:
    students = {"students": {"a": {}, "b": {}, "c": {}}}
    values = {"a": (0.9, 0.2), "b": (0.8, 0.3), "c": (0.9, 0.1)}
    nets = {
        key: {
            "val": {"accuracy": clean, "robust_accuracy": robust, "nll": 0.4 - 0.1 * (key == "c")}
        }
        for key, (clean, robust) in values.items()
    }
    (tmp_path / "metrics.json").write_text(json.dumps({"nets": nets}))
    # of equal ones, that with the lower NLL, as its weights were chosen
    for by, best in (({}, "c"), ({"choose_by": "robust_accuracy"}, "b"),
                     ({"choose_by": "accuracy"}, "c")):  # fmt: skip
        OmegaConf.save(OmegaConf.create({"method": students | by}), tmp_path / "config.yaml")
        assert best_student(tmp_path) == best

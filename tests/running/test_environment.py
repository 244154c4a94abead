import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY, compose, net
from lightning.pytorch.strategies import SingleDeviceStrategy
from omegaconf import DictConfig

import kd_lightning
from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.base.files import write_json
from kd_lightning.data.classification import ClassificationData
from kd_lightning.methods.supervised import Supervised
from kd_lightning.running import environment
from kd_lightning.running.build import build_data
from kd_lightning.running.environment import (
    check_unchanged,
    describe_environment,
    keep_first_command,
)
from kd_lightning.teachers.sources import Teacher


@pytest.fixture(scope="module")
def run() -> tuple[ClassificationData, DictConfig, None]:
    """What the record of a run without a teacher is made of."""
    cfg = compose(*TINY, "seed=3", "teacher.seed=4", "data.split_seed=5")
    return build_data(cfg), cfg, None


@pytest.fixture
def record(run) -> dict[str, Any]:
    return describe_environment(*run)


def test_the_record_is_json(record: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "environment.json", record)
    assert json.loads((tmp_path / "environment.json").read_text()) == record


def test_versions_are_those_that_run(record: dict[str, Any]) -> None:
    assert record["versions"]["torch"] == torch.__version__.split("+")[0] or (
        record["versions"]["torch"] == torch.__version__
    )
    assert None not in record["versions"].values()


def test_a_package_that_is_not_installed_is_null(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("torch", "no-such-package"))
    assert describe_environment(*run)["versions"]["no-such-package"] is None


def test_all_seeds_stand_there(record: dict[str, Any]) -> None:
    assert record["seeds"] == {"seed": 3, "teacher.seed": 4, "data.split_seed": 5}


def test_the_data_are_known_by_their_content_and_their_classes(run, record) -> None:
    data, *_ = run
    names = "\n".join(f"pattern {i}" for i in range(10))
    assert record["data"]["classes_sha256"] == hashlib.sha256(names.encode()).hexdigest()
    assert record["data"]["fingerprint"] == data.fingerprint
    assert record["data"]["protocol"] == data.protocol
    assert record["data"]["class_list_sha256"] is None


def git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a file of the package in it, which the module takes for its own."""
    (tmp_path / "kd_lightning").mkdir()
    source = tmp_path / "kd_lightning" / "__init__.py"
    source.write_text("one\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    git(tmp_path, *identity, "commit", "--quiet", "-m", "one")
    monkeypatch.setattr(kd_lightning, "__file__", str(source))
    return tmp_path


def test_the_commit_and_whether_the_source_was_changed(repository: Path, run) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert describe_environment(*run)["git"] == {"commit": commit, "dirty": False}
    (repository / "kd_lightning" / "__init__.py").write_text("two\n")
    assert describe_environment(*run)["git"] == {"commit": commit, "dirty": True}


def test_an_installed_package_has_no_commit(
    repository: Path, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # in somebody's own repository, as .venv/lib/kd_lightning/__init__.py is
    source = repository / ".venv" / "lib" / "kd_lightning" / "__init__.py"
    source.parent.mkdir(parents=True)
    monkeypatch.setattr(kd_lightning, "__file__", str(source))
    assert describe_environment(*run)["git"] is None


def test_without_git_there_is_no_commit(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert describe_environment(*run)["git"] is None


def test_a_teacher_is_known_by_its_weights_and_its_origin(run, record: dict[str, Any]) -> None:
    nothing = dict.fromkeys(("fingerprint", "origin", "val", "train"))
    assert record["teacher"] == {**nothing, "notes": []}
    data, cfg, _ = run
    nets = [net(), net()]
    for value in nets[1].parameters():
        value.data.mul_(1.001)
    records = [describe_environment(data, cfg, Teacher(n, "here", "x"))["teacher"] for n in nets]
    assert [record["origin"] for record in records] == ["here", "here"]
    assert len({record["fingerprint"] for record in records}) == 2
    assert records[0]["fingerprint"] == Teacher(nets[0], "there", "y").sha256


@pytest.mark.parametrize("key", ["data", "teacher"])
def test_a_resumed_run_has_the_data_and_the_teacher_it_began_with(
    key: str, record: dict[str, Any], tmp_path: Path
) -> None:
    check_unchanged(tmp_path, key, "anything")  # a new run: nothing to compare with
    write_json(tmp_path / "environment.json", record)
    check_unchanged(tmp_path, key, record[key]["fingerprint"])
    with pytest.raises(UserError, match=rf"the {key} changed after .*now other.*{key}"):
        check_unchanged(tmp_path, key, "other")


def test_this_very_checkout_has_its_commit(run) -> None:
    if not (Path(kd_lightning.__file__).parents[1] / ".git").exists():
        pytest.skip("no checkout")
    assert describe_environment(*run)["git"]["commit"] == git(
        Path(kd_lightning.__file__).parent, "rev-parse", "HEAD"
    )


def test_a_resumed_run_keeps_the_command_that_started_it(tmp_path: Path) -> None:
    for word, resumed in (("method=kd", None), ("a", ["a"]), ("b", ["a", "b"])):
        record: dict[str, Any] = {"command": [word]}
        keep_first_command(record, tmp_path)
        assert record["command"] == ["method=kd"]
        assert record.get("resumed_by") == (resumed and [[word] for word in resumed])
        write_json(tmp_path / "environment.json", record)


def test_from_python_the_command_is_that_of_a_command_line_and_threads_stay(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, step = set(), Supervised.training_step

    def watched(self: Supervised, *batch: Any) -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return step(self, *batch)

    # as Lightning does when it has started several processes
    monkeypatch.setattr(
        SingleDeviceStrategy, "setup_environment", lambda self: torch.set_num_threads(3)
    )
    monkeypatch.setattr(Supervised, "training_step", watched)
    own = [word for word in tiny if not word.startswith(("teacher", "threads"))]
    words = ["method=supervised", *own, "threads=2"]
    try:
        directory = distill(*words).directory
    finally:
        torch.set_num_threads(1)
    assert seen == {2}
    record = json.loads((directory / "environment.json").read_text())
    assert record["command"] == ["run.py", *words]

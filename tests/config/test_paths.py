"""Names are names, and no path is empty: nothing is read or written in another folder."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kd_lightning import distill, sweep
from kd_lightning.base.errors import UserError
from kd_lightning.base.files import check_name
from kd_lightning.config.options import CommandParser
from kd_lightning.config.paths import PATHS, check_paths
from kd_lightning.data.ucr import UCR

NO_NAMES = ("../../../etc", "/etc/passwd", "a/b", "a\\b", "..", ".", ".hidden", "", "a\0b", "a\nb",
            "a" * 101, "ü" * 51)  # fmt: skip


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_is_one_part_of_a_path(name: str) -> None:
    with pytest.raises(UserError, match=r"data.name must be a name, without / .*, got "):
        check_name(name, "data.name")
    with pytest.raises(UserError, match=r"data.name must be a name"):
        UCR(name=name, batch_size=2, seed=0)


@pytest.mark.parametrize("name", ["OSULeaf", "a-b_c.d", "Größe", "a b", "1", "a" * 100])
def test_what_a_file_can_be_called_is_a_name(name: str) -> None:
    check_name(name, "data.name")


@pytest.mark.parametrize("empty", ["", " ", "\t"])
@pytest.mark.parametrize("key", PATHS)
def test_no_path_of_a_run_is_empty(key: str, empty: str) -> None:
    cfg = OmegaConf.create({"method": {"students": {}}, "data": {}, "teacher": {}})
    OmegaConf.update(cfg, key, empty)
    with pytest.raises(UserError, match=rf"{key} must be a path, got an empty one \({key}=…\)"):
        check_paths(cfg)
    if key == "teacher.source":
        cfg.teacher.source = ["train", empty]
        with pytest.raises(UserError, match=rf"{key} must be a path"):
            check_paths(cfg)


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_student_is_called_by_a_name(name: str) -> None:
    cfg = OmegaConf.create({"method": {"students": {name: {}}}, "data": {}, "teacher": {}})
    with pytest.raises(UserError, match=r"the key of a student in method.students must be a name"):
        check_paths(cfg)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["outputs=''"], "outputs must be a path"),
        (["run_dir=''"], "run_dir must be a path"),
        (["resume=''"], "resume must be a path"),
        (["data=ucr", "data.name=../../../etc"], "data.name must be a name"),
        (["data=image_folder", "data.root=' '"], "data.root must be a path"),
    ],
)
def test_a_run_writes_nothing_where_no_path_or_name_is(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as info:
        distill("hardware=cpu", "logger=none", *words)
    assert said in str(info.value)
    assert not list(tmp_path.iterdir())


def test_a_sweep_has_no_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"sweep.dir must be a path, got an empty one"):
        sweep.sweep("sweep.dir=''", "seed=0,1", "method=supervised", "data=digits")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [[""], ["x", "--out", ""], ["x", "--out="]])
def test_no_word_of_a_command_is_empty(words: list[str], capsys: pytest.CaptureFixture) -> None:
    parser = CommandParser(prog="command")
    parser.add_argument("path")
    parser.add_argument("--out")
    with pytest.raises(SystemExit) as end:
        parser.parse_args(words)
    assert end.value.code == 2
    assert "expected a path or a name, got an empty one" in capsys.readouterr().err
    assert parser.parse_args(["x", "--out=y"]).out == "y"

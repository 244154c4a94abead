"""The list of all choices, with the description in their YAML."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from kd_lightning.base.errors import UserError
from kd_lightning.config.command_line import CONF
from kd_lightning.list import files, group_of, groups, header, lines, main, plural

KINDS = groups([CONF])


def listed(monkeypatch, capsys, *words: str) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["list", *words])
    main()
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's own YAML: methods, a net with the name of one of ours, and a new kind."""
    for name, text in {
        "method/mine.yaml": "# @package _global_\n# What I thought of\n_target_: mine.Mine\n",
        "method/silent.yaml": "_target_: mine.Silent\n# too late\n",
        "model/mlp.yaml": "# Another mlp\n",
        "potion/red.yaml": "# Heals\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    "path",
    [path for group in KINDS for path in sorted((CONF / group).rglob("*.yaml"))],
    ids=lambda path: str(path.relative_to(CONF)),
)
def test_every_choice_has_a_description(path: Path) -> None:
    assert len(header(path).split()) > 1, f"{path} does not start with a comment that describes it"


@pytest.mark.parametrize("group", KINDS)
@pytest.mark.parametrize("word", ["itself", "plural"])
def test_every_kind_lists_every_choice_with_its_header(
    group: str, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    printed = listed(monkeypatch, capsys, group if word == "itself" else plural(group))
    assert [line.split(maxsplit=1) for line in printed] == [
        [path.stem, header(path)] for path in sorted((CONF / group).glob("[!_]*.yaml"))
    ]


@pytest.mark.parametrize("kind", ["methods", "models", "data", "experiments"])
def test_the_kinds_in_the_readme_exist(kind: str) -> None:
    assert group_of(kind, [CONF]) in KINDS


@pytest.mark.parametrize(
    ("group", "word"),
    [
        ("method", "methods"),
        ("similarity", "similarities"),
        ("feature_loss", "feature_losses"),
        ("data", "data"),
        ("mixing", "mixing"),
    ],
)
def test_plurals_are_english(group: str, word: str) -> None:
    assert plural(group) == word


def test_hydras_package_comment_is_not_a_description(own: Path) -> None:
    assert header(own / "method/mine.yaml") == "What I thought of"


def test_a_comment_in_the_middle_is_not_a_description(own: Path) -> None:
    assert header(own / "method/silent.yaml") == ""


def test_without_a_kind_all_kinds_are_listed_with_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    printed = dict(line.split(maxsplit=1) for line in listed(monkeypatch, capsys))
    assert list(printed) == [plural(group) for group in KINDS]
    assert printed["methods"].startswith("method=adversarial_distillation|")
    assert printed["models"].startswith("model@method.students.<key>=convnext_atto|")


def test_the_nets_of_a_data_set_are_their_own_kind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    printed = listed(monkeypatch, capsys, "models/digits")
    assert [line.split()[0] for line in printed] == ["a", "b", "teacher"]
    assert not any("teacher" in line for line in listed(monkeypatch, capsys, "models"))


def test_the_users_own_files_are_listed_too(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    methods = listed(monkeypatch, capsys, "methods", "--config-dir", str(own))
    names = [line.split()[0] for line in methods]
    assert {"kd", "mine", "silent"} <= set(names)
    assert names == sorted(names)
    assert [line for line in methods if line.endswith("  What I thought of")]
    assert listed(monkeypatch, capsys, "potions", "--config-dir", str(own)) == ["red  Heals"]


def test_of_two_files_with_one_name_the_one_that_hydra_uses_is_shown(own: Path) -> None:
    assert files("model", [CONF, own])["mlp"] == CONF / "model" / "mlp.yaml"


@pytest.mark.parametrize("kind", ["metods", "models/nowhere", "/", "../method"])
def test_an_unknown_kind_is_one_sentence_and_code_2(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as end:
        listed(monkeypatch, capsys, kind)
    assert end.value.code == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert error.startswith(f"Error: unknown kind '{kind}': expected one of augmentations, ")


def test_a_folder_that_does_not_exist_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        listed(monkeypatch, capsys, "methods", "--config-dir", "/nowhere")
    assert "--config-dir must be a folder of YAML files, got /nowhere" in capsys.readouterr().err


def test_lines_are_cut_only_if_a_width_is_given() -> None:
    rows = [("a", "x" * 20), ("bc", "short"), ("d", "")]
    assert list(lines(rows, None)) == [f"a   {'x' * 20}", "bc  short", "d"]
    assert list(lines(rows, 10)) == ["a   xxxxx…", "bc  short", "d"]


def test_no_large_package_is_imported() -> None:
    program = "import sys, kd_lightning.list; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert not {"torch", "lightning", "timm", "sklearn"} & set(done.stdout.split())
    assert "kd_lightning.list" in done.stdout


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m kd_lightning.list models | true"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_lines_are_cut_to_the_width_of_a_terminal() -> None:
    reads, writes = pty.openpty()
    fcntl.ioctl(writes, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "kd_lightning.list", "methods"]
    subprocess.run(command, stdout=writes, env=environment, check=True)
    printed = os.read(reads, 10_000).decode().splitlines()
    os.close(reads)
    os.close(writes)
    assert max(map(len, printed)) == 60
    assert len(printed) == len(files("method", [CONF]))


def test_a_folder_without_choices_is_not_a_kind(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="unknown kind 'empty'"):
        group_of("empty", [tmp_path])

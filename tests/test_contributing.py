"""CONTRIBUTING's example is a method: typed as it stands there, it passes every check."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
MOST_LINES = 130


def written() -> dict[str, str]:
    """Each file that the four steps name -> what is typed into it."""
    steps = TEXT.split("## A new method in four steps")[1].split("\n## ")[0]
    blocks = re.findall(r"^\*\*\d\. .*?`([\w/.]+)`.*?```\w+\n(.*?)```", steps, re.S | re.M)
    return dict(blocks)


def test_a_method_is_four_files_and_few_lines() -> None:
    files = written()
    assert len(files) == 4
    assert sum(len(text.splitlines()) for text in files.values()) <= MOST_LINES


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the example in it."""
    copy = tmp_path_factory.mktemp("contributing") / "project"
    leave_out = shutil.ignore_patterns(".*", "__pycache__", "outputs", "build", "results")
    shutil.copytree(ROOT, copy, ignore=leave_out)
    for name, text in written().items():
        path = copy / name
        if not path.exists():
            path.write_text(text)
            continue
        lines = path.read_text().splitlines()
        for row in text.splitlines():  # below the last row of a table with as many columns
            same = [i for i, line in enumerate(lines) if is_row_like(line, row)]
            assert same, f"{name} has no table for {row}"
            lines.insert(same[-1] + 1, row)
        path.write_text("\n".join(lines) + "\n")
    return copy


def is_row_like(line: str, row: str) -> bool:
    same_kind = line.startswith("| `train/") == row.startswith("| `train/")
    return line.startswith("| `") and same_kind and line.count(" | ") == row.count(" | ")


def run(typed: Path, *command: str) -> str:
    paths = os.pathsep.join([str(typed), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=typed, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_example_is_linted(typed: Path) -> None:
    names = [name for name in written() if name.endswith(".py")]
    shutil.copy(ROOT / "pyproject.toml", typed)
    run(typed, "ruff", "check", *names)
    run(typed, "ruff", "format", "--check", *names)


@pytest.mark.slow
def test_the_example_passes_the_contract_and_its_own_test(typed: Path) -> None:
    tests = ["tests/methods/test_contract.py", "tests/methods/test_step.py",
             "tests/methods/test_similarity_preserving.py", "tests/test_conf.py",
             "tests/trackers/test_results.py", "tests/test_imports.py"]  # fmt: skip
    names = "similarity_preserving and not two_processes"
    said = run(typed, "pytest", "-q", "-p", "no:cacheprovider", "-k", names, *tests)
    passed = int(re.search(r"(\d+) passed", said).group(1))
    assert passed > 20
    assert "failed" not in said

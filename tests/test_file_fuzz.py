"""Changed files of every kind are read as before, as by another program, or refused in a sentence.

The long form is ``python -m benchmarks.torture.file_fuzz``.
"""

import os
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from benchmarks.torture.file_fuzz import ALLOWED, KINDS, Audit, counts_table, judge, try_kind
from benchmarks.torture.file_kind import Kind, Numbers
from benchmarks.torture.file_mutants import Mutant
from kd_lightning.base.errors import UserError

audit = cache(Audit)  # a hook of Python cannot be removed


@pytest.mark.parametrize("name", KINDS)
def test_a_changed_file_gives_no_traceback_and_no_silent_other_numbers(
    name: str, tmp_path: Path
) -> None:
    found = list(try_kind(name, range(2), 0, tmp_path, audit()))
    assert len(found) == 2
    for number, mutant, result in found:
        assert result.outcome in ALLOWED, f"{number} ({mutant.how}): {result.said}"


def test_a_mutant_depends_on_its_seed_its_kind_and_its_number_alone(tmp_path: Path) -> None:
    def contents(seed: int, numbers: range, folder: str) -> list[bytes]:
        tried = try_kind("txt, class list", numbers, seed, tmp_path / folder, audit())
        return [mutant.content for _, mutant, _ in tried]

    some = contents(0, range(6), "a")
    assert contents(0, range(3, 6), "b") == some[3:]
    assert contents(1, range(6), "c") != some
    assert len(set(some)) > 3


def read_first(folder: Path, file: Path) -> Numbers:
    return {"first": file.read_bytes()[:1]}


def traceback_of(folder: Path, file: Path) -> Numbers:
    raise KeyError("a bug")


def no_sentence(folder: Path, file: Path) -> Numbers:
    raise UserError("It is bad. Do something else")


def refuse(folder: Path, file: Path) -> Numbers:
    raise UserError("it is bad: do something else")


def same_always(folder: Path, file: Path) -> Numbers:
    return {"first": b"a"}


@pytest.mark.parametrize(
    ("read", "reread", "is_same", "outcome"),
    [
        (read_first, b"b", False, "as by another reader"),
        (read_first, b"c", False, "other numbers"),
        (read_first, None, False, "other numbers"),
        (read_first, b"b", True, "other numbers"),
        (same_always, b"b", True, "as before"),
        (traceback_of, b"b", False, "a traceback"),
        (no_sentence, b"b", False, "no sentence"),
        (refuse, b"b", True, "refused"),
    ],
)
def test_what_came_of_a_mutant_is_judged(
    tmp_path: Path,
    read: Callable[[Path, Path], Numbers],
    reread: bytes | None,
    is_same: bool,
    outcome: str,
) -> None:
    def other(file: Path) -> Numbers:
        if reread is None:
            raise ValueError("cannot be read")
        return {"first": reread}

    (tmp_path / "x").write_bytes(b"b")
    kind = Kind("binary", lambda folder: None, ["x"], read, other)
    result = judge(kind, tmp_path, tmp_path / "x", Mutant("", b"b", is_same), {"first": b"a"})
    assert result.outcome == outcome


def test_what_a_file_executes_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path) -> None:
        (folder / "x").write_bytes(b"a" * 50)

    def execute(folder: Path, file: Path) -> Numbers:
        if folder.name == "changed":
            os.system("true")
        return {}

    monkeypatch.setitem(KINDS, "evil", Kind("binary", write, ["x"], execute, lambda file: {}))
    ((_, _, result),) = try_kind("evil", [0], 0, tmp_path, audit())
    assert result.outcome == "executed"
    assert "os.system" in result.said


def test_the_table_has_a_column_for_each_kind_of_finding() -> None:
    counts = {"png": Counter({"refused": 2, "a wait": 1}), "ckpt": Counter({"as before": 1200})}
    assert list(counts_table(counts)) == [
        "| kind of file | tried | as before | as by another reader | refused | a wait |",
        "|---|---:|---:|---:|---:|---:|",
        "| png | 3 | 0 | 0 | 2 | 1 |",
        "| ckpt | 1,200 | 1,200 | 0 | 0 | 0 |",
        "| all | 1,203 | 1,200 | 0 | 2 | 1 |",
    ]

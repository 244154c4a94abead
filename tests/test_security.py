"""SECURITY.md: each promise names tests that exist."""

import re

from helpers import ROOT

TEXT = (ROOT / "SECURITY.md").read_text()


def test_each_promise_names_its_tests() -> None:
    rows = re.findall(r"^\| (?!promise|---)(.*) \| (.*) \|$", TEXT, re.M)
    assert len(rows) > 5
    for promise, tests in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)`", tests)
        assert named, promise
        for path in named:
            assert (ROOT / path).is_file(), path


def test_all_tests_of_received_files_are_named() -> None:
    for name in ("test_received", "test_audit", "base/test_allowed", "config/test_paths"):
        assert f"tests/{name}.py" in TEXT

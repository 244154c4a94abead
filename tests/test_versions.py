"""The oldest versions that pyproject.toml allows are those that `make test-oldest` runs with."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent


def direct_requirements() -> Iterator[Requirement]:
    """What `pip install -e .[all]` asks for by itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    (everything,) = map(Requirement, extras["all"])
    for words in (project["dependencies"], *(extras[name] for name in sorted(everything.extras))):
        yield from map(Requirement, words)


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def lower_bound(requirement: Requirement) -> Version:
    """Of `name>=1.2,<2` or `name==1.2`: 1.2."""
    (bound,) = (s.version for s in requirement.specifier if s.operator in (">=", "=="))
    return Version(bound)


def test_every_lower_bound_is_a_version_that_is_tested() -> None:
    oldest = pins("constraints-oldest.txt")
    asked = {canonicalize_name(r.name): lower_bound(r) for r in direct_requirements()}
    assert {name: oldest.get(name) for name in asked} == asked


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt"])
def test_the_tested_versions_are_allowed(name: str) -> None:
    tested = pins(name)
    for requirement in direct_requirements():
        version = tested[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), requirement

"""The README and the pages in docs/: short, complete, with links that lead somewhere, a website."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from helpers import DATA, METHODS, PAGES, ROOT

MOST_BYTES_OF_README = 8_900  # without the rows of methods, which a new method adds to
MADE = "docs/reference.md"  # by `make docs`
HAVE_FOLDERS = ("data", "evaluation", "reports")
FOLDERS = ("kd_lightning/", *(f"kd_lightning/{name}/" for name in HAVE_FOLDERS))
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
LINKS = [(page, *link) for page, text in PAGES.items() for link in LINK.findall(text)]
INSIDE = [link for link in LINKS if not link[1].startswith("http")]


def target(page: str, address: str) -> str:
    """The place in the repository of what a page links to."""
    place = (ROOT / page).parent / address if address else ROOT / page
    return os.path.relpath(place.resolve(), ROOT)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    without_code = re.sub(r"```.*?```", "", text, flags=re.S)
    headings = re.findall(r"^#+ (.*)$", without_code, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    lines = PAGES["README.md"].splitlines(keepends=True)
    without_methods = "".join(line for line in lines if not line.startswith("| `"))
    assert len(without_methods.encode()) <= MOST_BYTES_OF_README


@pytest.mark.parametrize("name", [*METHODS, *DATA])
def test_every_method_and_data_set_is_in_a_table(name: str) -> None:
    assert re.search(rf"^\| [^|]*`{name}`", "".join(PAGES.values()), re.M)


def test_every_method_is_in_the_readmes_table_and_in_that_of_the_methods() -> None:
    for page in ("README.md", "docs/methods.md"):
        missing = [name for name in METHODS if f"\n| `{name}` | " not in PAGES[page]]
        assert not missing, page


@pytest.mark.parametrize(("page", "address", "anchor"), INSIDE)
def test_every_link_leads_somewhere(page: str, address: str, anchor: str) -> None:
    place = target(page, address)
    if place == MADE:  # `mkdocs build --strict` checks the anchors of a page that is made
        assert page != "README.md", "there is no such file where the README is read"
        return
    assert (ROOT / place).exists(), place
    if anchor:
        assert anchor in anchors((ROOT / place).read_text()), f"{place}#{anchor}"


def test_there_are_links_to_every_page_and_every_page_is_in_the_navigation() -> None:
    pages = {page for page in PAGES if page != "README.md"}
    from_readme = {target(page, address) for page, address, _ in INSIDE if page == "README.md"}
    assert pages <= from_readme
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    in_nav = {f"docs/{place}" for entry in nav for place in entry.values()}
    assert in_nav == pages | {MADE}


def test_the_layout_names_every_folder_and_command() -> None:
    (layout,) = re.findall(r"## Layout\n+```text\n(.*?)```", PAGES["docs/index.md"], re.S)
    package = ROOT / "kd_lightning"
    folders = [p.parent.name for p in package.rglob("__init__.py") if p.parent != package]
    commands = [path.name for path in package.glob("[!_]*.py")]
    for name in [*(f"  {folder}/ " for folder in folders), *commands]:
        assert name in layout, name
    for name in re.findall(r"\S+\.py|\w+/", layout):
        places = [f"{folder}{name}" for folder in ("", *FOLDERS)]
        assert any((ROOT / place).exists() for place in places), name


@pytest.mark.slow
@pytest.mark.skipif(
    not (find_spec("mkdocs") and find_spec("material")),
    reason='needs mkdocs-material: pip install -e ".[docs]"',
)
def test_the_website_is_built_without_a_warning_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = {page.stem for page in (tmp_path / "site").glob("*.html")}
    assert names == {"404", "reference"} | {Path(p).stem for p in PAGES if p != "README.md"}
    for page in (tmp_path / "site").glob("*.html"):
        text = page.read_text()
        assert not re.search(r'<(?:script|img|link|iframe)[^>]*(?:src|href)="https?:', text)
        assert "fonts.googleapis" not in text

"""The page of all options is made from conf/ and the constructors, and leaves nothing out."""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from helpers import ROOT

from kd_lightning.base.ranges import Count, Share
from kd_lightning.config.command_line import CONF

spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs/make_reference.py")
make_reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_reference)
PAGE = make_reference.reference()
ROWS = [
    [re.sub(r"</?code>", "", cell).strip() for cell in row[2:-2].split(" | ")]
    for row in re.findall(r"^\| <code>.*$", PAGE, re.M)
]
FILES = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
NOT_SHOWN = {Path("multirun.yaml"), Path("wandb_sweep.yaml")}


def row(key: str, default: str) -> list[str]:
    return next(row for row in ROWS if row[:2] == [key, default])


def section(path: Path) -> str:
    """What the page says about a file."""
    if len(path.parts) == 3:
        return PAGE.split(f"**`{path.parent.name}/{path.stem}`**")[1]
    anchor = path.stem if len(path.parts) == 1 else f"{path.parts[0]}-{path.stem.lstrip('_')}"
    after = PAGE.split(f"{{ #{anchor} }}")
    assert len(after) == 2, anchor
    return after[1].split("\n## ")[0]


@pytest.mark.parametrize("path", [p for p in FILES if p not in NOT_SHOWN], ids=str)
def test_every_key_of_every_file_is_there(path: Path) -> None:
    content = yaml.safe_load((CONF / path).read_text()) or {}
    text = section(path)
    for key in content:
        if not key.startswith("_") and key not in ("defaults", "hydra"):
            assert re.search(rf"\b{re.escape(key)}\b", text), key


def test_a_row_has_key_default_type_and_comment() -> None:
    kd = (CONF / "method" / "kd.yaml").read_text()
    (comment,) = re.findall(r"^temperature: 4.0 # (.*)$", kd, re.M)
    assert ["method.temperature", "4.0", "float &gt; 0", make_reference.prose(comment)] in ROWS
    assert row("data.root", "null")[2] == "str &#124; null"
    assert row("hardware.precision", "32")[2] == "str &#124; int"
    assert row("launcher.poll_seconds", "15")[2] == "float"
    assert row("trainer.accumulate_grad_batches", "1")[2] == "int &gt;= 1"


def test_a_choice_links_to_its_group() -> None:
    assert row("model@method.teacher", "${data}/teacher")[2] == "[model](#model)"
    assert row("confidence@method.confidence", "entropy")[2] == "[confidence](#confidence)"
    assert row("similarity@method.guidance.similarity", "dot")[2] == "[similarity](#similarity)"


def test_what_a_constructor_says_stands_where_a_file_says_nothing_or_less() -> None:
    assert row("method.num_classes", "${task.num_classes}")[3]
    assert "<br>" in row("method.normalize_confidence", "false")[3]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "some.yaml"
    path.write_text(text)
    return path


def test_comments_belong_to_their_keys(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "# A file that says a lot,\n# over two lines\n#   python -m command x=1\n"
        "first: 1 # behind\n# above\n# on two lines\nsecond: null # and behind\n"
        "third: # of all below\n  inner: [1, 2] # of this\n  # of the other\n  other: {a: 1}\n",
    )
    header = make_reference.header_of(path)
    assert header == ("A file that says a lot, over two lines", ["python -m command x=1"])
    rows = [(o.key, o.default, o.meaning) for o in make_reference.options_of(path, "group.")]
    assert rows == [
        ("group.first", "1", "behind"),
        ("group.second", "null", "above on two lines and behind"),
        ("group.third", "", "of all below"),
        ("group.third.inner", "[1, 2]", "of this"),
        ("group.third.other", "", "of the other"),
        ("group.third.other.a", "1", ""),
    ]


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        (int | None, "int | null"),
        (Literal["auto"] | bool, "auto | bool"),
        (dict[str, Path], "dict[str, Path]"),
        (Count | None, "int >= 1 | null"),
        (Sequence[Share], "Sequence[float in [0, 1]]"),
        (Any, ""),
    ],
)
def test_types_are_in_the_words_of_yaml(kind: Any, shown: str) -> None:
    assert make_reference.shown_type(kind) == shown


def test_signs_of_markdown_are_shown_as_they_are() -> None:
    shown = "a &#124; b &lt;c&gt; \\*d* `e_f` \\_g &#123;h: 1}"
    assert make_reference.prose("a | b <c> *d* `e_f` _g {h: 1}") == shown
    assert make_reference.code("a|b") == "<code>a&#124;b</code>"


def test_every_key_has_a_meaning() -> None:
    silent = [row[0] for row in ROWS if not row[3] and not row[2].startswith("[")]
    assert not silent, "give them a comment in conf/"

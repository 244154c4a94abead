"""The parts of a page, as data. ``templates/`` turns each kind into HTML."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from kd_lightning.base.tables import Table


@dataclass(frozen=True)
class Figure:
    """A chart.

    Attributes:
        svg: the picture.
        title: above it.
        legend: (CSS class, name) of what it shows; a click on a name hides what has this key.
        note: under it.
        width: in pixels. The figures of a block have one width, and get more if a row has room.
    """

    svg: Markup
    title: str
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""
    width: int = 350


@dataclass(frozen=True)
class Figures:
    """Charts side by side."""

    figures: Sequence[Figure]
    kind: str = "figures"


@dataclass(frozen=True)
class SortableTable:
    """A table that a click on a head sorts."""

    table: Table
    kind: str = "table"


@dataclass(frozen=True)
class ShadedCell:
    """A cell whose background shows a number.

    Attributes:
        shade: from 0 to 1.
        style: a CSS class: "right", "wrong", "value" or "none".
        title: shown under the pointer.
    """

    text: str
    shade: float
    style: str
    title: str = ""


@dataclass(frozen=True)
class ShadedTable:
    """A confusion matrix or a heat map.

    Attributes:
        corner: what the rows and columns are.
        heads: of the columns.
        rows: the head of each row, and its cells.
    """

    title: str
    corner: str
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[ShadedCell]]]
    note: str = ""
    kind: str = "shaded"


@dataclass(frozen=True)
class Answer:
    """What one net says about an example; ``confidence`` is None for a net without one."""

    net: str
    predicted: str
    confidence: float | None
    is_right: bool


@dataclass(frozen=True)
class Example:
    """A test sample.

    Attributes:
        picture: the address of an image (data:), or "" for a series.
        svg: the drawing of a series, or "" for an image.
    """

    title: str
    label: str
    answers: Sequence[Answer]
    picture: str = ""
    svg: Markup = field(default_factory=Markup)


@dataclass(frozen=True)
class Examples:
    """Test samples side by side."""

    examples: Sequence[Example]
    kind: str = "examples"


@dataclass(frozen=True)
class Command:
    """What to type, and what it repeats."""

    name: str
    words: str


@dataclass(frozen=True)
class Commands:
    """Commands with buttons that copy them."""

    commands: Sequence[Command]
    kind: str = "commands"


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    facts: Sequence[tuple[str, str]]
    kind: str = "facts"


@dataclass(frozen=True)
class Notes:
    """Sentences as a list."""

    sentences: Sequence[str]
    kind: str = "notes"


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str
    kind: str = "heading"


@dataclass(frozen=True)
class Folded:
    """Blocks that are shown after a click."""

    title: str
    blocks: Sequence["Block"]
    is_open: bool = False
    kind: str = "folded"


Block = (
    Figures | SortableTable | ShadedTable | Examples | Commands | Facts | Notes | Heading | Folded
)


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        name: its anchor.
        title: its heading.
        intro: a sentence or two under the heading.
        blocks: its content. A section without blocks is left out.
    """

    name: str
    title: str
    intro: str
    blocks: Sequence[Block]

"""What the pictures of the documents share: where they are, and how they are written."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from benchmarks.report import HERE

FOLDER = HERE.parent / "docs" / "pictures"


def save(figure: Figure, path: Path) -> None:
    """Writes a picture whose text stays text, equal for equal numbers."""
    path.parent.mkdir(exist_ok=True)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):
        figure.savefig(path, metadata={"Date": None})

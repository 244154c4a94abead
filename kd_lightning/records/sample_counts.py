"""How many samples a run had, from the sentence on its protocol."""

import re
from typing import NamedTuple


class SampleCounts(NamedTuple):
    """Numbers of samples."""

    train: int
    val: int
    test: int


def sample_counts(protocol: str) -> SampleCounts | None:
    """The numbers in "(train / val / test samples)" of a protocol; None: it has none."""
    found = re.search(r"\((\d+) / (\d+) / (\d+) samples\)", protocol)
    return SampleCounts(*map(int, found.groups())) if found else None

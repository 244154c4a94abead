"""Which keys belong to a sweep, and not to its jobs."""

import re

SWEEP_GROUPS = ("sweep", "launcher", "sampler", "pruner")  # a single run does not have them


def is_sweep_key(word: str) -> bool:
    """Whether a key or an override sets something of a sweep, and not of its jobs."""
    return re.split(r"[@.=]", word.lstrip("+~"))[0] in SWEEP_GROUPS

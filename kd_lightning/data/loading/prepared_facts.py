"""What preparation has written about a prepared or packed folder: read, checked, and used."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_lightning.base.errors import UserError
from kd_lightning.base.reading import read_json
from kd_lightning.base.words import cut, plain
from kd_lightning.records.resumed_config import EARLIER_READING

KEY = "data.root"  # that names the folder, for messages
SHOWN = 40  # characters of a wrong value in a message
ADVICE = "prepare it again"


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_text, value))


def are_names(value: Any) -> bool:
    return are_texts(value) and len(set(value)) == len(value)


def are_whole(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_whole, value))


# key -> what it must be, in words and as a check
FACTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "val_fraction": ("a share in [0, 1)", is_share),
    "split_seed": ("a whole number", is_whole),
    "test_is": ("text", is_text),
    "test_is_cut": ("true or false", lambda value: isinstance(value, bool)),
    "class_names": ("different names", are_names),
    "class_list_sha256": ("text or null", lambda value: value is None or is_text(value)),
    "imagenet_rows": ("whole numbers or null", lambda value: value is None or are_whole(value)),
    "parts": ("the parts train and test", lambda value: {"train", "test"} <= keys_of(value)),
}
SIDES = {name: ("a whole number", is_whole) for name in ("size", "image_size")}
LATER = {  # facts that older versions did not write
    "notes": ("sentences", are_texts),
    "exif": ("true or false", lambda value: isinstance(value, bool)),
    "resize": ("text", is_text),
    "interpolation": ("text", is_text),
}
OF_PARTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "source": ("text", is_text),
    "labels": ("whole numbers, one or more", lambda value: are_whole(value) and bool(value)),
    "bad": ("whole numbers", are_whole),
    "names": ("names of files", are_texts),
    "sizes": ("whole numbers", are_whole),
}


def read_facts(
    path: Path, place: Path | str, format: int, of_parts: Sequence[str]
) -> dict[str, Any]:
    """The facts in the index of a prepared or packed folder.

    Args:
        path: of the index.
        place: the folder or its address, for messages.
        format: the version of the folder that can be read.
        of_parts: keys that each part must have beside ``source`` and ``labels``.

    Raises:
        UserError: the file cannot be read, has another format, or a fact is missing or wrong.
    """
    facts = read_json(path, KEY, ADVICE)
    found = facts.get("format") if isinstance(facts, dict) else None
    if found != format:
        raise UserError(
            f"{place} has format {cut(plain(json.dumps(found)), SHOWN)}, this version reads "
            f"{format}: {ADVICE} ({KEY}=…)"
        )
    index = f"{place}/{path.name}"
    sides = SIDES if "bad" in of_parts else {}
    check_values(facts, {**FACTS, **sides}, index)
    check_values(facts, {key: LATER[key] for key in LATER if key in facts}, index)
    for name, part in facts["parts"].items():
        wanted = {key: OF_PARTS[key] for key in ("source", "labels", *of_parts)}
        check_values(part if isinstance(part, dict) else {}, wanted, index, f"parts.{name}.")
        check_lengths(part, index, f"parts.{name}")
    return facts


def check_values(
    facts: Mapping[str, Any],
    wanted: Mapping[str, tuple[str, Callable[[Any], bool]]],
    index: str,
    prefix: str = "",
) -> None:
    """Raises ``UserError`` for the first fact that is missing or not what it must be."""
    for key, (what, is_right) in wanted.items():
        if key not in facts or not is_right(facts[key]):
            got = cut(plain(json.dumps(facts[key])), SHOWN) if key in facts else "nothing"
            raise UserError(
                f"{index} is damaged: its {plain(prefix)}{key} must be {what}, got {got}: {ADVICE} "
                f"({KEY}=…)"
            )


def check_lengths(part: Mapping[str, Any], index: str, name: str) -> None:
    """Raises ``UserError`` if a part does not have one fact for each of its samples."""
    count = len(part["labels"])
    lengths = [len(part[key]) for key in ("names", "sizes") if key in part]
    if set(lengths) - {count} or max(part.get("bad", []), default=-1) >= count:
        raise UserError(
            f"{index} is damaged: its {name} has {count} labels and other numbers of samples: "
            f"{ADVICE} ({KEY}=…)"
        )


def keys_of(value: Any) -> set[str]:
    return set(value) if isinstance(value, dict) else set()


def resolve_prepared(facts: Mapping[str, Any], key: str, requested: Any) -> Any:
    """The value of ``key`` in preparation.

    Args:
        facts: the metadata that preparation wrote.
        requested: ``data.<key>``; None: that of preparation.

    Raises:
        UserError: another value is requested.
    """
    prepared = facts.get(key, EARLIER_READING[key])
    if requested not in (None, prepared):
        now, then = (str(value).lower() for value in (requested, prepared))
        raise UserError(
            f"the images were prepared with {key}={then}, got data.{key}={now}: remove it, or "
            "prepare the images again with it"
        )
    return prepared

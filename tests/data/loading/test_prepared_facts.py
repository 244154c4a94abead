"""An index that preparation did not write so is refused with the fact that is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.prepared_facts import read_facts

PART = {"source": "0f", "labels": [0, 1], "bad": [1], "names": ["a/1", "b/1"], "sizes": [3, 4]}
FACTS = {
    "format": 3, "size": 8, "image_size": 8, "val_fraction": 0.1, "split_seed": 0,
    "test_is": "its own", "test_is_cut": False, "class_names": ["a", "b"], "imagenet_rows": None,
    "class_list_sha256": None, "notes": ["One."], "exif": True, "resize": "crop",
    "interpolation": "bilinear", "parts": {"train": PART, "test": PART},
}  # fmt: skip
NEEDED = set(FACTS) - {"notes", "exif", "resize", "interpolation", "format"}


def read(folder: Path, facts: Any) -> dict[str, Any]:
    (folder / "index.json").write_text(json.dumps(facts))
    return read_facts(folder / "index.json", folder, 3, list(PART)[2:])


def with_part(**changed: Any) -> dict[str, Any]:
    return {**FACTS, "parts": {"train": {**PART, **changed}, "test": PART}}


def test_sound_facts_are_read_with_and_without_later_ones(tmp_path: Path) -> None:
    assert read(tmp_path, FACTS) == FACTS
    earlier = {key: FACTS[key] for key in NEEDED | {"format"}}
    assert read(tmp_path, earlier) == earlier


@pytest.mark.parametrize("key", sorted(NEEDED))
def test_a_missing_fact_is_named(tmp_path: Path, key: str) -> None:
    facts = {name: value for name, value in FACTS.items() if name != key}
    with pytest.raises(UserError, match=rf"index.json is damaged: its {key} must be .*got nothing"):
        read(tmp_path, facts)


@pytest.mark.parametrize("key", sorted(set(FACTS) - {"format"}))
@pytest.mark.parametrize("value", [-1, [[]], {"a": 1}], ids=str)
def test_a_fact_of_another_kind_is_named(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"its {key} must be .*: prepare it again \(data.root=…"):
        read(tmp_path, {**FACTS, key: value})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"labels": []}, "parts.train.labels must be whole numbers"),
        ({"labels": [0, True]}, "parts.train.labels must be whole numbers"),
        ({"labels": [0, -1]}, "parts.train.labels must be whole numbers"),
        ({"bad": [-1]}, "parts.train.bad must be whole numbers"),
        ({"bad": [2]}, "parts.train has 2 labels and other numbers of samples"),
        ({"sizes": [3]}, "parts.train has 2 labels and other numbers of samples"),
        ({"names": [1, 2]}, "parts.train.names must be names of files"),
    ],
)
def test_parts_have_a_fact_for_each_sample(tmp_path: Path, changed: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read(tmp_path, with_part(**changed))


@pytest.mark.parametrize("facts", [[], None, 3, {}, {"format": 7}, {"format": "x" * 999}], ids=str)
def test_another_format_is_refused_in_a_short_sentence(tmp_path: Path, facts: Any) -> None:
    with pytest.raises(UserError, match=r"has format .*, this version reads 3") as caught:
        read(tmp_path, facts)
    assert len(str(caught.value)) < 300

"""benchmarks.rehearsal: its tree is one of ImageNet-100, and it reads what ``--plan`` prints."""

import pytest
from helpers import compose

from benchmarks.rehearsal import SMALL, planned_seconds, write_tree
from kd_lightning.callbacks.progress_line import duration
from kd_lightning.data.imagenet100 import LISTS
from kd_lightning.running.build import build_data


@pytest.mark.slow
def test_the_tree_has_the_classes_of_the_preset_and_no_image_twice(tmp_path) -> None:
    write_tree(tmp_path, (LISTS / "cmc.txt").read_text().split(), train=2, test=1)
    words = [word for word in SMALL if word.startswith("data.")]
    data = build_data(compose("data=imagenet100", f"data.root={tmp_path}", *words))
    assert data.num_classes == 100
    assert "(100 / 100 / 100 samples)" in data.protocol
    assert not [note for note in data.notes if "also in" in note]


@pytest.mark.parametrize("seconds", [0.25, 42, 720, 12_000])
def test_the_planned_time_is_read_as_it_is_shown(seconds: int) -> None:
    plan = f"Together {duration(seconds)}, one run after another. Stages"
    assert planned_seconds(plan) == seconds


def test_a_plan_without_a_time_is_refused() -> None:
    with pytest.raises(SystemExit, match="the plan says no time"):
        planned_seconds("nothing")

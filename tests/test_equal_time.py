"""benchmarks.equal_time and the preset that has its epochs."""

from pathlib import Path

import pytest

from benchmarks import equal_time
from benchmarks.training_costs import LABELS
from kd_lightning.sweeps.preset import Settings, settings_of

TABLES = """
| variant | teacher rows | student rows | backward rows | FLOPs | saved for backward | extra parameters | time | 95 % interval |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
| kd | 1 | 1 | 1 | 1.00 | 1.00 | 0 | 1.00 | 0.99 to 1.01 |
| labels only | 0 | 1 | 1 | 0.18 | 1.00 | 0 | 0.50 | 0.49 to 0.51 |
| branches | 1 | 1 | 1 | 1.00 | 1.00 | 0 | 1.00 | 0.99 to 1.01 |
| codes | 1 | 1 | 1 | 1.00 | 1.00 | 0 | 1.20 | 1.19 to 1.21 |

| variant | work | epochs | relative to | parameters | FLOPs | time | 95 % interval |
|---|---|---|---|---:|---:|---:|---:|
| all with teacher rows | teacher | 20 | a step of kd | 0 | 2.44 | 2.00 | 1.92 to 2.14 |
| branches | teacher, with branches | 20 | a step of the usual teacher | 500 | 1.07 | 1.25 | 1.20 to 1.25 |
| codes | stage codecs | 3 (20% of the run) | a step of kd | 51,028 | 0.82 | 1.50 | 0.64 to 0.65 |
"""  # noqa: E501


def test_equal_time_pays_for_steps_stages_and_more_costly_teachers(tmp_path: Path) -> None:
    path = tmp_path / "costs.md"
    path.write_text(TABLES)
    assert equal_time.epochs(path) == {
        "kd": 30,
        "labels only": 60,  # 30 / 0.5
        "branches": 20,  # 30 - 20 * 2.00 * (1.25 - 1)
        "codes": 20,  # 30 / (1.20 + 3 / 15 * 1.50)
        equal_time.WITH_TEACHERS_TIME: 140,  # (30 + 20 * 2.00) / 0.5
    }


@pytest.fixture(scope="module")
def preset() -> Settings:
    return settings_of(["sweep=zoo_equal_time"], None)[0]


def test_the_preset_has_the_epochs_of_the_committed_costs(preset: Settings) -> None:
    of_preset = {name: words[-1] for name, words in preset.variants.items()}
    epochs = equal_time.epochs()
    assert of_preset == {name: f"trainer.max_epochs={epochs[name]}" for name in of_preset}


def test_the_preset_has_the_weights_of_the_zoo(preset: Settings) -> None:
    zoo, _, _ = settings_of(["sweep=zoo"], None)
    for name, words in preset.variants.items():
        of_zoo = LABELS if name == equal_time.WITH_TEACHERS_TIME else name
        assert words[:-1] == zoo.variants[of_zoo], name
    assert preset.overrides == zoo.overrides


def test_the_preset_compares_every_other_row_with_kd(preset: Settings) -> None:
    assert preset.pairs == [[name, "kd"] for name in preset.variants if name != "kd"]


def test_the_command_prints_each_variant(capsys: pytest.CaptureFixture[str]) -> None:
    equal_time.main()
    lines = capsys.readouterr().out.splitlines()
    assert "  30  kd" in lines
    assert len(lines) == len(equal_time.epochs())

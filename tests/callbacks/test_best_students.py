from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import net
from torch import nn

from kd_lightning import distill
from kd_lightning.base.errors import Damaged
from kd_lightning.callbacks.best_students import BestStudents
from kd_lightning.models.weights import load_weights


def method(*keys: str) -> SimpleNamespace:
    students = nn.ModuleDict({key: net() for key in keys})
    return SimpleNamespace(students=students, chosen_by="accuracy")


def trainer(epoch: int, *, first: bool = True, **metrics: tuple[float, float]) -> SimpleNamespace:
    """A trainer at the end of an epoch; ``metrics``: student -> (val accuracy, val nll)."""
    values = {
        f"val/{key}/{name}": torch.tensor(value)
        for key, pair in metrics.items()
        for name, value in zip(("accuracy", "nll"), pair, strict=True)
    }
    return SimpleNamespace(
        current_epoch=epoch, is_global_zero=first, callback_metrics=values, callbacks=[]
    )


def chosen_epochs(best: BestStudents) -> dict[str, float]:
    return {key: choice["epoch"] for key, choice in best.chosen.items()}


@pytest.mark.parametrize(
    ("epochs", "chosen"),
    [
        ([(0.5, 1.0), (0.7, 2.0), (0.6, 0.1)], 1),  # the highest accuracy
        ([(0.5, 1.0), (0.5, 0.9), (0.5, 1.1)], 1),  # equal accuracy: the lowest NLL
        ([(0.5, 1.0), (0.5, 1.0)], 0),  # equal metrics: the earliest epoch
        ([(0.5, 1.0), (0.4, 0.5), (0.3, 0.1)], 0),
    ],
)
def test_the_best_epoch(epochs: list[tuple[float, float]], chosen: int, tmp_path: Path) -> None:
    best = BestStudents(tmp_path)
    for epoch, pair in enumerate(epochs):
        best.on_validation_end(trainer(epoch, a=pair), method("a"))
    assert chosen_epochs(best) == {"a": chosen}
    assert best.chosen["a"]["accuracy"] == pytest.approx(epochs[chosen][0])
    assert best.chosen["a"]["nll"] == pytest.approx(epochs[chosen][1])


@pytest.mark.parametrize(("chooser", "chosen"), [("robust_accuracy", 1), ("accuracy", 2)])
def test_a_method_may_choose_by_another_metric_and_both_are_kept(
    chooser: str, chosen: int, tmp_path: Path
) -> None:
    best, learner = BestStudents(tmp_path), method("a")
    learner.chosen_by = chooser
    for epoch, robust in enumerate([0.3, 0.5, 0.4]):
        run = trainer(epoch, a=(0.9 + epoch / 100, 1.0))
        run.callback_metrics["val/a/robust_accuracy"] = torch.tensor(robust)
        best.on_validation_end(run, learner)
    assert chosen_epochs(best) == {"a": chosen}
    assert best.chosen["a"]["robust_accuracy"] == pytest.approx([0.3, 0.5, 0.4][chosen])
    assert best.chosen["a"]["accuracy"] == pytest.approx(0.9 + chosen / 100)


def test_each_student_has_its_own_best_epoch_and_the_weights_of_that_epoch(tmp_path: Path) -> None:
    best = BestStudents(tmp_path)
    nets = []
    for epoch, (a, b) in enumerate([(0.9, 0.1), (0.2, 0.8)]):
        learner = method("a", "b")
        nets.append(learner.students)
        best.on_validation_end(trainer(epoch, a=(a, 1.0), b=(b, 1.0)), learner)
    assert chosen_epochs(best) == {"a": 0, "b": 1}
    for epoch, key in enumerate("ab"):
        loaded = net()
        load_weights(loaded, best.path(key), "run_dir")
        for name, value in nets[epoch][key].state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value)


def test_a_file_holds_the_weights_and_the_metrics_that_chose_them(tmp_path: Path) -> None:
    best = BestStudents(tmp_path)
    best.on_validation_end(trainer(3, a=(0.5, 1.5)), method("a"))
    saved = torch.load(tmp_path / "best-a.ckpt", weights_only=True)
    assert set(saved) == {"state_dict", "key", "epoch", "accuracy", "nll"}
    assert (saved["key"], saved["epoch"], saved["accuracy"], saved["nll"]) == ("a", 3, 0.5, 1.5)
    assert [path.name for path in tmp_path.iterdir()] == ["best-a.ckpt"]


def test_without_a_val_part_the_last_epoch_is_saved(tmp_path: Path) -> None:
    best = BestStudents(tmp_path)
    best.on_fit_end(trainer(5), method("a", "b"))
    assert best.chosen == {}
    for key in "ab":
        assert torch.load(best.path(key), weights_only=True)["epoch"] == 4


def test_with_a_val_part_the_end_changes_nothing(tmp_path: Path) -> None:
    best = BestStudents(tmp_path)
    best.on_validation_end(trainer(0, a=(0.5, 1.0)), method("a"))
    before = best.path("a").read_bytes()
    best.on_fit_end(trainer(5), method("a"))
    assert best.path("a").read_bytes() == before


def test_other_ranks_make_the_same_choice_and_write_nothing(tmp_path: Path) -> None:
    best = BestStudents(tmp_path)
    best.on_validation_end(trainer(0, first=False, a=(0.5, 1.0)), method("a"))
    best.on_fit_end(trainer(1, first=False), method("a"))
    assert chosen_epochs(best) == {"a": 0}
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_remembers_its_choice(tmp_path: Path) -> None:
    first, again = BestStudents(tmp_path), BestStudents(tmp_path)
    first.on_validation_end(trainer(0, a=(0.9, 1.0)), method("a"))
    again.load_state_dict(first.state_dict())
    again.on_validation_end(trainer(1, a=(0.8, 1.0)), method("a"))
    assert chosen_epochs(again) == {"a": 0}


def chosen_again(state: dict, folder: Path) -> dict[str, dict]:
    again = BestStudents(folder)
    again.load_state_dict(state)
    return again.chosen


def test_weights_that_are_newer_than_the_checkpoint_are_chosen_by_their_own_metrics(
    tmp_path: Path,
) -> None:
    best = BestStudents(tmp_path)
    best.on_validation_end(trainer(0, a=(0.5, 1.0)), method("a"))
    older = deepcopy(best.state_dict())
    best.on_validation_end(trainer(4, a=(0.9, 1.0)), method("a"))
    assert chosen_again(older, tmp_path) == best.chosen  # the run goes back to epoch 0
    again = BestStudents(tmp_path)
    again.load_state_dict(older)
    before = again.path("a").read_bytes()
    for epoch, accuracy in ((1, 0.6), (4, 0.9)):  # and comes to the same epochs again
        again.on_validation_end(trainer(epoch, a=(accuracy, 1.0)), method("a"))
    assert again.chosen == best.chosen
    assert again.path("a").read_bytes() == before


def test_weights_that_are_older_than_the_choice_or_damaged_are_refused(tmp_path: Path) -> None:
    best = BestStudents(tmp_path)
    best.on_validation_end(trainer(0, a=(0.5, 1.0)), method("a"))
    old = best.path("a").read_bytes()
    best.on_validation_end(trainer(4, a=(0.9, 1.0)), method("a"))
    for content in (old, old[:-100], b""):
        best.path("a").write_bytes(content)
        with pytest.raises(Damaged, match=r"best-a.ckpt .*: val chose its weights of epoch 4, so"):
            chosen_again(best.state_dict(), tmp_path)


def test_a_run_without_val_that_was_killed_after_its_last_checkpoint_can_be_resumed(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fixed bug: the weights of the last epoch were never written, because a fit that is finished
    is skipped.
    """
    directory = tmp_path / "run"
    words = [word for word in tiny if not word.startswith("teacher.")]

    def stop(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(BestStudents, "on_fit_end", stop)
        with pytest.raises(RuntimeError, match="killed"):
            distill("method=supervised", *words, "data.val_fraction=0", f"run_dir={directory}")
    assert (directory / "last.ckpt").exists()
    assert not list(directory.glob("best-*"))
    result = distill(f"resume={directory}")
    saved = torch.load(directory / "best-student.ckpt", weights_only=True)
    assert saved["epoch"] == result.metrics["epochs"] - 1


@pytest.mark.parametrize("steps", [3, 8, 9])
def test_the_last_step_of_a_run_is_validated_wherever_it_is(steps: int, tiny: list[str]) -> None:
    """Fixed bug: an epoch that ``max_steps`` ends early was not, so its weights were no choice."""
    words = ["method=supervised", "data.num_train=72", "data.val_fraction=0.12"]
    tiny = [
        w
        for w in tiny
        if not w.startswith(("trainer.max_epochs", "data.num_train", "teacher", "method"))
    ]
    length = ["data.batch_size=16", "trainer.max_epochs=20", f"trainer.max_steps={steps}"]
    result = distill(*tiny, *words, *length)
    lines = (result.directory / "epochs.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    assert int(float(rows[-1]["step"])) == steps
    assert all(row["val/accuracy"] for row in rows)
    assert result.objective is not None

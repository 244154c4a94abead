"""The length of a stage, its learning rates, and what is refused."""

import pytest
import torch
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.methods.stage_recipe import RecipeStage, StageRecipe


def recipe(**options: object) -> StageRecipe:
    return StageRecipe(**({"run_epochs": 240, "learning_rate": 0.05} | options))


def stage(**options: object) -> RecipeStage:
    made = RecipeStage(name="a", teacher=nn.Linear(1, 1), recipe=recipe(**options))
    made.module = nn.Linear(2, 2)
    return made


@pytest.mark.parametrize(("share", "run", "epochs"), [(0.25, 240, 60), (0.25, 1, 1), (0, 240, 0),
                                                       (0.5, 5, 2), (2, 3, 6)])  # fmt: skip
def test_the_length_is_a_share_of_the_run_and_at_least_an_epoch(
    share: float, run: int, epochs: int
) -> None:
    assert recipe(share=share, run_epochs=run).epochs == epochs


def test_the_released_rates_are_those_of_60_epochs_with_tenths_at_30_and_45() -> None:
    made = stage()
    assert made.max_epochs == 60
    parts = made.configure_optimizers()
    optimizer, scheduler = parts["optimizer"], parts["lr_scheduler"]
    assert isinstance(optimizer, torch.optim.SGD)
    group = optimizer.param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.9, 5e-4)
    rates = []
    for _ in range(60):
        rates.append(group["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.05] * 30 + [0.005] * 15 + [0.0005] * 15)


def test_a_stage_of_one_epoch_begins_with_its_learning_rate() -> None:
    parts = stage(run_epochs=1).configure_optimizers()
    assert parts["optimizer"].param_groups[0]["lr"] == 0.05


def test_settings_are_what_shapes_the_result_besides_the_number_of_epochs() -> None:
    assert stage().settings() == stage(run_epochs=120, share=0.5).settings()
    for changed in ({"learning_rate": 0.1}, {"momentum": 0.0}, {"weight_decay": 0.0},
                    {"milestones": [0.5]}):  # fmt: skip
        assert stage(**changed).settings() != stage().settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [("share", -0.1), ("share", float("inf")), ("learning_rate", 0.0), ("momentum", -1.0),
     ("weight_decay", float("nan")), ("milestones", [1.5])],
)  # fmt: skip
def test_bad_values_end_in_one_sentence_with_their_key(name: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"^method\.stage_recipe\.{name}.* must be .*, got "):
        recipe(**{name: value})


def test_a_stage_needs_a_run_with_epochs() -> None:
    with pytest.raises(UserError, match=r"got -1 \(trainer.max_epochs=…, or .*run_epochs=…\)"):
        recipe(run_epochs=-1)

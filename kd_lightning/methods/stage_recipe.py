"""How a stage is trained: SGD whose learning rate falls to a tenth at parts of the stage."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import NotNegative, Positive, Range, Share
from kd_lightning.config.values import check_numbers
from kd_lightning.methods.stage import Stage

KEY = "method.stage_recipe"


@dataclass(frozen=True, kw_only=True)
class StageRecipe:
    """The length of a stage and its optimizer.

    Args:
        run_epochs: of the method's own training.
        share: epochs of the stage, as a share of ``run_epochs``; 0: there is no stage.
        learning_rate, momentum, weight_decay: of SGD.
        milestones: parts of the stage, in [0, 1], after which the learning rate falls to a tenth.
    """

    run_epochs: int
    learning_rate: Positive
    share: Annotated[float, Range(least=0, limit=1000)] = 0.25
    momentum: NotNegative = 0.9
    weight_decay: NotNegative = 5e-4
    milestones: Sequence[Share] = (0.5, 0.75)

    def __post_init__(self) -> None:
        check_numbers(StageRecipe, vars(self), KEY)
        if self.share and self.run_epochs < 1:
            raise UserError(
                f"the length of the stage is a share of trainer.max_epochs, which must be >= 1, got"
                f" {self.run_epochs} (trainer.max_epochs=…, or {KEY}.run_epochs=…)"
            )

    @property
    def epochs(self) -> int:
        """Epochs of the stage: at least one, unless the share is 0."""
        return max(1, round(self.share * self.run_epochs)) if self.share else 0


class RecipeStage(Stage):
    """A stage that is trained by a ``StageRecipe``. The author writes ``training_step``."""

    def __init__(self, *, recipe: StageRecipe, **stage: Any) -> None:
        super().__init__(max_epochs=recipe.epochs, **stage)
        self.recipe = recipe

    def configure_optimizers(self) -> Any:
        recipe = self.recipe
        optimizer = SGD(
            self.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        marks = [part * self.max_epochs for part in recipe.milestones]
        scheduler = LambdaLR(optimizer, lambda epoch: 0.1 ** sum(epoch >= mark for mark in marks))
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def settings(self) -> Any:
        # the share and the run's length count only by the number of epochs that they give
        return {k: v for k, v in asdict(self.recipe).items() if k not in ("share", "run_epochs")}

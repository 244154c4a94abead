"""Knowledge-consistent distillation (KCD), Han et al. 2021 (arXiv 2103.16844).

    P = the teacher's channel for each channel of the student, matched once before training
    L = hard_weight * CE(z, y) + soft_weight * T^2 KL(softmax(z_t / T) || softmax(z / T))
        + feature_weight * mean_d( (F_d - F^t_P(d))^2 )

Two nets use different channels for the same thing. So the teacher's channels are brought into the
student's order before the student imitates them. Logits need no matching: classes have an order.

A reconstruction: the paper's abstract was read, its text and code were not at hand. Ours are the
similarity (Pearson's correlation of activations that are averaged over the positions, over
``match_samples`` training samples, with the student in eval mode), the assignment, the layers (the
last feature maps), all weights and T = 4. A matching to random initial weights is a matching to
noise that training changes soon. With ``match_with=labels`` the students learn the labels first, in
a stage of its own, and go on from there; how they learn is ours too. With ``pretrained`` they begin
with the weights of another run. What is left out: matching again during training, and whatever the
paper does to the teacher's classifier.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.ranges import NotNegative, Range
from kd_lightning.base.weights_hash import sha256_of
from kd_lightning.losses.channel_matching import MATCHINGS, MatchedChannels
from kd_lightning.losses.feature_loss import pooled
from kd_lightning.methods.feature_distillation import (
    CLASSIFIERS_INPUT,
    FeatureDistillation,
    shapes_for,
)
from kd_lightning.methods.label_stage import LearnLabels
from kd_lightning.methods.stage import Stage
from kd_lightning.methods.stage_recipe import StageRecipe
from kd_lightning.models.modes import in_mode
from kd_lightning.models.net_stages import net_stages

Rows = Mapping[str, list[tuple[Tensor, Tensor]]]  # student -> (its rows, the teacher's) of a pair
MATCH_WITH = ("initial", "pretrained", "labels")


class MatchChannels(Stage):
    """Matches the channels of all pairs of layers by what they give for training samples.

    Args:
        matched: student -> the losses of its pairs, which are matched here.
        students: as they begin; they do not change.
        rows: of a batch.
        match_samples: looked at, at most.
        layers: student -> its layers -> the teacher's.
    """

    config_keys = ("students",)  # the weights do not say all of a net, such as its input size

    def __init__(
        self,
        *,
        matched: nn.ModuleDict,
        students: nn.ModuleDict,
        rows: Callable[[Tensor], Rows],
        match_samples: int,
        layers: Mapping[str, Mapping[str, str]],
        **stage: Any,
    ) -> None:
        super().__init__(name="channel-matching", **stage)
        self.automatic_optimization = False
        self.matched = matched
        object.__setattr__(self, "students", students)  # no part of the result
        self.rows = rows
        self.match_samples = match_samples
        self.layers = layers
        self.initial = sha256_of(students)
        self.seen: list[Rows] = []
        self.num_seen = 0

    def _apply(self, fn: Callable, recurse: bool = True) -> "MatchChannels":
        self.students._apply(fn)
        return super()._apply(fn, recurse)

    def settings(self) -> Any:
        first = next(iter(self.matched.values()))[0]
        of_losses = [first.matching, first.ridge, first.scale is not None]
        layers = {key: dict(pairs) for key, pairs in self.layers.items()}
        return [self.match_samples, layers, self.initial, *of_losses]

    def configure_optimizers(self) -> None:
        return None

    def on_train_epoch_start(self) -> None:
        self.seen, self.num_seen = [], 0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if self.num_seen >= self.match_samples else None  # -1 ends the epoch

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x = batch[0][: self.match_samples - self.num_seen]
        self.seen.append(self.rows(x))
        self.num_seen += len(x)

    def on_train_epoch_end(self) -> None:
        # not later: a stage that is stopped after its epoch goes on from what the epoch has left
        for key, losses in self.matched.items():
            correlations = []
            for n, loss in enumerate(losses):
                pairs = [rows[key][n] for rows in self.seen]
                student, teacher = (torch.cat(rows) for rows in zip(*pairs, strict=True))
                correlations.append(loss.match(student, teacher))
            self.log(f"{key}/correlation", sum(correlations) / len(correlations))


class ConsistentFeatures(FeatureDistillation):
    """Each student imitates its teacher's channels in an order that suits its own.

    Args:
        matching: "one_to_one" | "greedy" | "learned", or the controls "identity" | "random": see
            ``MatchedChannels``.
        match_with: "initial": the student as it begins. "pretrained": the same, and a student that
            begins with random weights is refused. "labels": the student after a stage in which it
            learns the labels, with whose weights it begins.
        stage_recipe: of match_with=labels.
        match_samples: training samples by which channels are matched, at most.
        ridge: of matching=learned, in units of the teacher's mean square.
        standardize: differences in standard deviations of the target's channel.
        layers: student's layer -> teacher's layer, for all students; or student -> such pairs.
            None: the last feature maps; the classifiers' inputs, where a net has no maps.
        soft_weight: of the teacher's soft targets.
        feature_weight: of the sum over the layers.
    """

    def __init__(
        self,
        *,
        matching: str = "one_to_one",
        match_with: str = "initial",
        stage_recipe: StageRecipe | None = None,
        match_samples: Annotated[int, Range(least=2)] = 5000,
        ridge: NotNegative = 1e-3,
        standardize: bool = False,
        soft_weight: NotNegative = 1.0,
        feature_weight: NotNegative = 1.0,
        **features: Any,
    ) -> None:
        if matching not in MATCHINGS:
            raise unknown("matching", matching, MATCHINGS, "method.matching")
        loss = functools.partial(
            MatchedChannels, matching=matching, ridge=ridge, standardize=standardize
        )
        super().__init__(
            feature_loss=loss, soft_weight=soft_weight, feature_weight=feature_weight, **features
        )
        self.match_samples = match_samples
        self.match_with = match_with
        self.stage_recipe = stage_recipe
        self._check_start(match_with)

    def _check_start(self, match_with: str) -> None:
        if match_with not in MATCH_WITH:
            raise unknown("start of the students", match_with, MATCH_WITH, "method.match_with")
        if match_with == "labels" and not (self.stage_recipe and self.stage_recipe.epochs):
            raise UserError(
                "match_with=labels needs a stage with epochs: raise method.stage_recipe.share, or "
                "set method.match_with=initial"
            )
        for key, student in self.students.items():
            if match_with == "pretrained" and not getattr(student, "starts_trained", False):
                raise UserError(
                    f"match_with=pretrained needs students with trained weights, and {key} begins "
                    f"with random ones (method.students.{key}.weights=<a file of a run with labels "
                    "alone>, or method.match_with=labels)"
                )

    def default_layers(self, input_shape: Sequence[int]) -> Mapping[str, Mapping[str, str]]:
        theirs = shapes_for(self.teacher, input_shape, net_stages)
        layers = {}
        for key, student in self.students.items():
            mine = shapes_for(student, input_shape, net_stages)
            ends = {list(mine)[-1]: list(theirs)[-1]} if mine and theirs else CLASSIFIERS_INPUT
            layers[key] = ends
        return layers

    def own_modules(self) -> dict[str, nn.Module]:
        return {}  # a matching does not learn

    def stages(self) -> Iterator[Stage]:
        if self.match_with == "labels":
            yield LearnLabels(
                students=self.students,
                seed=self.seed,
                recipe=self.stage_recipe,
                teacher=self.teacher,
            )
        yield from super().stages()

    def stage(self) -> Stage:
        return MatchChannels(
            matched=self.feature_losses,
            students=self.students,
            rows=self.rows,
            match_samples=self.match_samples,
            layers=self.layers,
            teacher=self.teacher,
        )

    @torch.no_grad()
    def rows(self, x: Tensor) -> Rows:
        """What the channels of all pairs of layers give for a batch, (B, D) each, on the CPU."""
        with self.teacher_layers.record() as theirs:
            self.teacher(x)
        rows = {}
        for key, student in self.students.items():
            with in_mode(student, "eval"), self.student_layers[key].record() as mine:
                student(x)
            pairs = self.layers[key].items()
            rows[key] = [
                tuple(pooled(o.float()).cpu() for o in (mine[a], theirs[b])) for a, b in pairs
            ]
        return rows

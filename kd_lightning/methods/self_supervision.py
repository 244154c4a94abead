"""Knowledge distillation meets self-supervision (SSKD), Xu et al. 2020 (arXiv 2006.07114).

Each sample gives V views: the normal one and V - 1 transformed ones (rotations by 90, 180 and 270
degrees). A stage first fits a small network g_t on the features of the frozen teacher, so that a
transformed view is most similar to the normal view of the same sample. Each student then has a g_s
of its own, and imitates the teacher's table of similarities:

    L = hard_weight * CE(z, y)                                            normal views
      + soft_weight * T^2 KL(softmax(z_t / T) || softmax(z / T))          normal views
      + transformed_weight * T^2 KL(softmax(z_t / T) || softmax(z / T))   kept transformed views
      + similarity_weight * T_s^2 KL(softmax(S_t / T_s) || softmax(S / T_s))   kept rows of S
    S_ij = cos(g(f(transformed view i)), g(f(normal view j)))
    stage: CE(S_t, the normal view of the same sample), without a temperature

Kept are the views where the teacher's true class (true normal view) has the highest score, and a
share of the others, those with the lowest error levels: ``losses.similarity_tables.kept_rows``.

As released, for images. Ours: the views of time series, whose default is a choice of three; ties
between error levels; the stage is a quarter of the run's epochs, which is the released 60 for a run
of 240. Not copied: the choice of the best epoch on the test part, and a mean over no kept view,
which is not a number; here it is 0. Where only normal views count, the others are not computed; the
released code shows them to the student's batch norm. Under DDP a table is that of one process.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.ranges import NotNegative, Share, Temperature
from kd_lightning.base.streams import seed_stream, stream_seed
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.similarity_tables import cosine_table, kept_rows, mean_of_kept
from kd_lightning.losses.soft_targets import soft_target_kl
from kd_lightning.methods.checks import check_weights
from kd_lightning.methods.distiller import Distiller
from kd_lightning.methods.projections import num_features, two_layers
from kd_lightning.methods.stage import Stage
from kd_lightning.methods.stage_recipe import RecipeStage, StageRecipe
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.methods.views import views_for
from kd_lightning.models.outputs import ModelOutput

HARD_VIEWS = ("normal", "all")


class Targets(NamedTuple):
    """What the teacher says about a batch; None where no term needs it.

    Attributes:
        logits: of the normal views, or of all, (B or V * B, C).
        kept_logits: whether a transformed view is in the transformed term, ((V - 1) * B,).
        table: of similarities, ((V - 1) * B, B).
        kept_table: whether a row is in the similarity term, ((V - 1) * B,).
    """

    logits: Tensor | None = None
    kept_logits: Tensor | None = None
    table: Tensor | None = None
    kept_table: Tensor | None = None


class SelfSupervision(Distiller):
    """Each student imitates what its teacher says of several views of a sample, and how similar the
    teacher sees them.

    Args:
        input_shape: of one sample.
        stage_recipe: of the stage that fits the teacher's g_t; share 0: g_t stays random.
        series_views: for time series: names in ``views.SERIES_VIEWS``, V - 1 of them.
        view_augmentation: a batch transform that changes each view by itself; None: none.
        hard_views: whose labels count: of the "normal" views or of "all".
        temperature: T, of the logits.
        similarity_temperature: T_s, of the tables.
        transformed_ratio, similarity_ratio: share of the wrong rows that is kept.
        hard_weight: of the labels.
        soft_weight: of the teacher's soft targets on normal views.
        transformed_weight: of the teacher's soft targets on transformed views.
        similarity_weight: of the tables; 0: there are no projections and no stage.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        stage_recipe: StageRecipe,
        series_views: Sequence[str] = ("reverse", "sign_flip", "segment_permutation"),
        view_augmentation: Any = None,
        hard_views: Literal["normal", "all"] = "normal",
        temperature: Temperature = 4.0,
        similarity_temperature: Temperature = 0.5,
        transformed_ratio: Share = 1.0,
        similarity_ratio: Share = 0.75,
        hard_weight: NotNegative = 0.1,
        soft_weight: NotNegative = 0.9,
        transformed_weight: NotNegative = 2.7,
        similarity_weight: NotNegative = 10.0,
        **distiller: Any,
    ) -> None:
        super().__init__(**distiller)
        check_weights(
            hard_weight=hard_weight,
            soft_weight=soft_weight,
            transformed_weight=transformed_weight,
            similarity_weight=similarity_weight,
        )
        check_choices(hard_views, view_augmentation)
        self.stage_recipe = stage_recipe
        self.view_augmentation = view_augmentation
        self.hard_views = hard_views
        self.temperature = temperature
        self.similarity_temperature = similarity_temperature
        self.transformed_ratio = transformed_ratio
        self.similarity_ratio = similarity_ratio
        self.hard_weight = hard_weight
        self.soft_weight = soft_weight
        self.transformed_weight = transformed_weight
        self.similarity_weight = similarity_weight
        self.num_views, self.make_views = views_for(
            input_shape, series_views, "method.series_views"
        )
        if not (transformed_weight or similarity_weight or hard_views == "all"):
            self.num_views, self.make_views = 1, lambda x: x
        self._build_projections(input_shape)

    def _build_projections(self, input_shape: Sequence[int]) -> None:
        """g_t of the teacher and g_s of each student, if the tables count."""
        self.projections, self.fitted_projection = nn.ModuleDict(), None
        if not self.similarity_weight:
            return
        self.fitted_projection = self._projection("teacher", self.teacher, input_shape)
        for key, student in self.students.items():
            self.projections[key] = self._projection(key, student, input_shape)
        if not self.stage_recipe.epochs:
            self.freeze_module(self.fitted_projection)

    def _projection(self, key: str, net: nn.Module, input_shape: Sequence[int]) -> nn.Module:
        width = num_features(net, input_shape)
        seed_stream(self.seed, "projection", key)
        return two_layers(width, width, width)

    def own_modules(self) -> dict[str, nn.Module]:
        return dict(self.projections.items())

    def stage(self) -> Stage | None:
        if self.fitted_projection is None or not self.stage_recipe.epochs:
            return None
        return FitProjection(
            projection=self.fitted_projection,
            make_views=self.make_views,
            view_augmentation=self.view_augmentation,
            seed=self.seed,
            recipe=self.stage_recipe,
            teacher=self.teacher,
        )

    @property
    def teacher_rows(self) -> int:
        if self.transformed_weight or self.similarity_weight:
            return self.num_views
        return 1 if self.soft_weight else 0

    def unsupported(self) -> dict[str, str]:
        reasons = {"cache": "the teacher sees several views of each sample"}
        if self.transformed_weight:
            reasons["mixing"] = "a view is kept by the rank of its class, and a mixed one has two"
        if self.view_augmentation is not None:
            reasons["compile"] = "method.view_augmentation has a new seed at each step"
        return reasons

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        views = self.views_of(x)
        targets = self.targets_of(views, y)
        terms = {}
        for key, student in self(views).items():
            terms[f"{key}/hard"] = self.hard_weight * self.hard_loss(student, y)
            if self.soft_weight:
                soft = self.soft_loss(student, targets, slice(None, len(y)))
                terms[f"{key}/soft"] = self.soft_weight * soft.mean()
            if self.transformed_weight:
                soft = self.soft_loss(student, targets, slice(len(y), None))
                transformed = mean_of_kept(soft, targets.kept_logits)
                terms[f"{key}/transformed"] = self.transformed_weight * transformed
            if self.similarity_weight:
                table = similarity_table(self.projections[key], student.features, len(y))
                distances = soft_target_kl(table, targets.table, self.similarity_temperature)
                similarity = mean_of_kept(distances, targets.kept_table)
                terms[f"{key}/similarity"] = self.similarity_weight * similarity
        return Losses(terms)

    def views_of(self, x: Tensor) -> Tensor:
        """All views of a batch, (V * B, ...), view by view."""
        self.seed_step_stream("views")
        views = self.make_views(x)
        if self.view_augmentation is None:
            return views
        return self.augment(views, self.view_augmentation, "views")

    @torch.no_grad()
    def targets_of(self, views: Tensor, y: Tensor) -> Targets:
        if not self.teacher_rows:
            return Targets()
        teacher = self.teacher_output(views[: self.teacher_rows * len(y)])
        kept_logits = table = kept_table = None
        if self.transformed_weight:
            classes = y.repeat(self.num_views - 1)
            kept_logits = kept_rows(teacher.logits[len(y) :], classes, self.transformed_ratio)
        if self.similarity_weight:
            table = similarity_table(self.fitted_projection, teacher.features, len(y))
            kept_table = kept_rows(table, normal_views(table), self.similarity_ratio)
        return Targets(teacher.logits, kept_logits, table, kept_table)

    def hard_loss(self, student: ModelOutput, y: Tensor) -> Tensor:
        count = self.num_views if self.hard_views == "all" else 1
        logits = student.logits[: count * len(y)]
        return label_cross_entropy(logits, torch.cat([y] * count)).mean()

    def soft_loss(self, student: ModelOutput, targets: Targets, rows: slice) -> Tensor:
        return soft_target_kl(student.logits[rows], targets.logits[rows], self.temperature)


class FitProjection(RecipeStage):
    """Fits g_t: a transformed view is to be most similar to the normal view of its sample.

    Args:
        projection: g_t.
        make_views: batch -> all views, view by view.
        view_augmentation: of the method.
        seed: of the views.
    """

    config_keys = ("series_views", "view_augmentation")

    def __init__(
        self,
        *,
        projection: nn.Module,
        make_views: Callable[[Tensor], Tensor],
        view_augmentation: Any,
        seed: int,
        **stage: Any,
    ) -> None:
        super().__init__(name="projection", **stage)
        self.projection = projection
        self.make_views = make_views
        self.view_augmentation = view_augmentation
        self.seed = seed

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        x = batch[0]
        with torch.no_grad():
            features = self.teacher(self.views_of(x)).features
        table = similarity_table(self.projection, features, len(x))
        true = normal_views(table)
        loss = F.cross_entropy(table, true)
        self.log("loss", loss, on_step=False, on_epoch=True)
        matched = (table.detach().argmax(dim=1) == true).float().mean()
        self.log("matched", matched, on_step=False, on_epoch=True)
        return loss

    def views_of(self, x: Tensor) -> Tensor:
        seed_stream(self.seed, "views", self.global_step, device=x.device)
        views = self.make_views(x)
        if self.view_augmentation is None:
            return views
        seed = stream_seed(self.seed, "view augmentation", self.global_step)
        return self.view_augmentation.seeded(views, seed)


def check_choices(hard_views: str, view_augmentation: Any) -> None:
    """Raises ``UserError`` for choices that there are not."""
    if hard_views not in HARD_VIEWS:
        raise unknown("choice of hard views", hard_views, HARD_VIEWS, "method.hard_views")
    if view_augmentation is not None and not hasattr(view_augmentation, "seeded"):
        raise UserError(
            f"{type(view_augmentation).__name__} transforms single samples, and views are a batch: "
            "choose a batch transform (augmentation@method.view_augmentation=…)"
        )


def similarity_table(
    projection: nn.Module, features: Float[Tensor, "V*B D"], size: int
) -> Float[Tensor, "(V-1)*B B"]:
    """Cosines of all transformed views and all normal views of a batch of ``size`` samples."""
    projected = projection(features)
    return cosine_table(projected[size:], projected[:size])


def normal_views(table: Float[Tensor, "(V-1)*B B"]) -> Int[Tensor, "(V-1)*B"]:
    """The column of each row's own sample."""
    rows, size = table.shape
    return torch.arange(rows, device=table.device) % size

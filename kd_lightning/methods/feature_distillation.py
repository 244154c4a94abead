"""Feature distillation on named layers: FitNets (arXiv 1412.6550), attention transfer (1612.03928),
relational knowledge distillation (1904.05068), variational information distillation (1904.05835),
the overhaul of feature distillation (1904.01866), contrastive representations with and without
their memory (1910.10699), mutual information (MIMKD, 2110.15946).

    L = hard_weight * CE(z, y) + soft_weight * T^2 KL(softmax(z_t / T) || softmax(z / T))
        + feature_weight * sum over pairs of layers of feature_loss(student's, teacher's)

A layer is any module of a net, by its dotted name. Each student learns by itself. The regressors
and critics of a loss are in the student's parameter group and in ``last.ckpt``, and are no part of
the student. FitNets use the soft term after their hints, and attention transfer is reported with it
and without; here, as in the field's tables of single methods, its weight is 0.

``reuse_classifier`` is the reused teacher classifier (SimKD, arXiv 2203.14001): the student gets
the teacher's classifier, frozen, and its trunk learns the teacher's features. The student's net has
a projector (``models/projected.py``) where the sizes differ. The projector and the loss are as
released, where a larger map of the student is pooled before the projector and not after it, and the
projector is used even where the sizes agree.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.ranges import NotNegative, Temperature
from kd_lightning.base.streams import seed_stream
from kd_lightning.base.words import shorten
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.feature_loss import FeatureLoss, ShapeMismatch
from kd_lightning.losses.fitnet import FitNet
from kd_lightning.losses.soft_targets import soft_target_kl
from kd_lightning.methods.checks import check_weights
from kd_lightning.methods.distiller import Distiller
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.models.layer_outputs import (
    LayerOutputs,
    Shape,
    check_layer,
    layer_shapes,
    learning_layers,
    outline,
)

KEY = "method.layers"
CLASSIFIERS_INPUT = {"trunk": "trunk"}


class FeatureDistillation(Distiller):
    """Each student imitates what layers of its teacher give.

    Args:
        input_shape: of one sample: (channels, height, width) or (channels, length).
        feature_loss: (student_shape, teacher_shape) -> the loss of a pair of layers.
        layers: student's layer -> teacher's layer, for all students; or student -> such pairs.
            None: the classifiers' inputs, which every net has.
        temperature: T, of both softmaxes of the soft term.
        hard_weight: of the labels.
        soft_weight: of the teacher's soft targets.
        feature_weight: of the layers; None: the field's for this loss and the last pair.
        reuse_classifier: each student has the teacher's classifier, which learns no more.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        feature_loss: Callable[..., FeatureLoss] = FitNet,
        layers: Mapping[str, str | Mapping[str, str]] | None = None,
        temperature: Temperature = 4.0,
        hard_weight: NotNegative = 1.0,
        soft_weight: NotNegative = 0.0,
        feature_weight: NotNegative | None = None,
        reuse_classifier: bool = False,
        **distiller: Any,
    ) -> None:
        super().__init__(**distiller)
        if layers is None:
            layers = self.default_layers(input_shape)
        self.layers = layers_of_students(layers, self.students)
        self.feature_losses = self._build_losses(feature_loss, input_shape)
        self.needs_indices = next(iter(self.feature_losses.values()))[-1].needs_indices
        names = dict.fromkeys(name for pairs in self.layers.values() for name in pairs.values())
        self.teacher_layers = LayerOutputs(self.teacher, names)
        self.student_layers = {
            key: LayerOutputs(student, self.layers[key]) for key, student in self.students.items()
        }
        if feature_weight is None:
            feature_weight = next(iter(self.feature_losses.values()))[-1].field_weight
        check_weights(
            hard_weight=hard_weight, soft_weight=soft_weight, feature_weight=feature_weight
        )
        self.temperature = temperature
        self.hard_weight = hard_weight
        self.soft_weight = soft_weight
        self.feature_weight = feature_weight
        if reuse_classifier:
            self._reuse_classifier()

    def default_layers(self, input_shape: Sequence[int]) -> Mapping[str, Any]:
        """``layers`` where none are given."""
        return CLASSIFIERS_INPUT

    def _build_losses(
        self, feature_loss: Callable[..., FeatureLoss], input_shape: Sequence[int]
    ) -> nn.ModuleDict:
        """Student -> a loss for each of its pairs, made for the shapes that one sample shows."""
        teachers = shapes_for(self.teacher, input_shape)
        losses = nn.ModuleDict()
        for key, pairs in self.layers.items():
            student = self.students[key]
            shapes = shapes_for(student, input_shape)
            losses[key] = nn.ModuleList()
            for mine, theirs in pairs.items():
                check_layer(mine, student, shapes, f"student {key}", KEY)
                check_layer(theirs, self.teacher, teachers, "the teacher", KEY)
                if not learning_layers(student, torch.zeros(1, *input_shape), [mine]):
                    raise UserError(
                        f"nothing of student {key} learns up to its layer {mine}, so the teacher "
                        f"would teach it nothing there: choose a later one ({KEY}=…)"
                    )
                seed_stream(self.seed, "regressor", key, mine)
                try:
                    loss = feature_loss(student_shape=shapes[mine], teacher_shape=teachers[theirs])
                except ShapeMismatch as error:
                    raise UserError(
                        f"layer {mine} of student {key} and layer {theirs} of the teacher do not go"
                        f" together: {error}; "
                        f"student {key} has {fitting(student, shapes, feature_loss)}, "
                        f"the teacher {fitting(self.teacher, teachers, feature_loss)} "
                        f"({KEY}=… or feature_loss@method.feature_loss=…)"
                    ) from error
                except ValueError as error:
                    raise UserError(f"{error} (method.feature_loss.…=…)") from error
                losses[key].append(loss)
        return losses

    def _reuse_classifier(self) -> None:
        head = self.teacher.head
        for key, student in self.students.items():
            try:
                student.head.load_state_dict(head.state_dict())
            except RuntimeError as error:
                raise UserError(
                    f"student {key} is to have its teacher's classifier, and their features differ "
                    f"in size: give it a projector to the teacher's {head.in_features} "
                    f"(model@method.students.{key}=resnet8x4_projected "
                    f"method.students.{key}.projected={head.in_features}), or set "
                    "method.reuse_classifier=false"
                ) from error
            self.freeze_module(student.head)

    def own_modules(self) -> dict[str, nn.Module]:
        return dict(self.feature_losses.items())

    def use_labels(self, y: Tensor) -> None:
        for key, losses in self.feature_losses.items():
            for mine, loss in zip(self.layers[key], losses, strict=True):
                seed_stream(self.seed, "memory", key, mine)
                loss.allocate(y)

    def unsupported(self) -> dict[str, str]:
        reasons = {"cache": "it needs layers of the teacher, which a cache does not hold"}
        if self.needs_indices:
            reasons["mixing"] = "its memory has a slot for each sample, and a mixed one is two"
        return reasons

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        with self.teacher_layers.record() as targets, torch.no_grad():
            teacher = self.teacher(x)  # not its fast copy, where layers may be folded away
        samples = {"index": cached["index"]} if self.needs_indices else {}
        terms = {}
        for key in self.students:
            with self.student_layers[key].record() as layers:
                output = self.forward_student(key, x)
            hard = label_cross_entropy(output.logits, y)
            soft = soft_target_kl(output.logits, teacher.logits, self.temperature)
            if self.needs_indices:
                self.seed_step_stream("negatives", key)
            pairs = zip(self.layers[key].items(), self.feature_losses[key], strict=True)
            feature = sum(
                loss(layers[mine], targets[theirs], **samples) for (mine, theirs), loss in pairs
            )
            terms[f"{key}/hard"] = self.hard_weight * hard.mean()
            terms[f"{key}/soft"] = self.soft_weight * soft.mean()
            terms[f"{key}/feature"] = self.feature_weight * feature.mean()
        return Losses(terms)


def layers_of_students(
    layers: Mapping[str, str | Mapping[str, str]], students: Mapping[str, nn.Module]
) -> dict[str, dict[str, str]]:
    """Student -> its layers -> the teacher's, from pairs for all or pairs for each.

    Raises:
        UserError: pairs for all beside pairs for one, an unknown student, or a student without.
    """
    of_one = {key: pairs for key, pairs in layers.items() if not isinstance(pairs, str)}
    if not of_one:
        of_one = {key: layers for key in students}
    elif len(of_one) < len(layers):
        raise UserError(
            "method.layers must be pairs of layers for all students, or such pairs for each, got "
            f"{next(key for key in layers if key not in of_one)} beside {next(iter(of_one))}"
        )
    for key in of_one:
        if key not in students:
            raise unknown("student", key, students, f"method.layers.{key}")
    for key in students:
        if not of_one.get(key):
            raise UserError(
                f"student {key} needs a pair of layers, got none (method.layers={{{key}: "
                "{trunk: trunk}})"
            )
    return {key: dict(of_one[key]) for key in students}


def shapes_for(
    net: nn.Module,
    input_shape: Sequence[int],
    of: Callable[[nn.Module, Tensor], dict[str, Shape]] = layer_shapes,
) -> dict[str, Shape]:
    """What ``of`` says for a sample of this shape; raises ``UserError`` if the net takes none."""
    try:
        return of(net, torch.zeros(1, *input_shape))
    except (UserError, RuntimeError) as error:
        raise UserError(
            f"input_shape must be that of a sample, and a net takes none of {tuple(input_shape)} "
            "(method.input_shape=…)"
        ) from error


def fitting(
    net: nn.Module, shapes: Mapping[str, Shape], feature_loss: Callable[..., FeatureLoss]
) -> str:
    """The layers of a net that this loss could compare, in words."""

    def fits(shape: Shape) -> bool:
        try:
            feature_loss(student_shape=shape, teacher_shape=shape)
        except ShapeMismatch:
            return False
        return True

    names = outline(net, [name for name, shape in shapes.items() if fits(shape)])
    return shorten(names, 12) or "no layer for this loss"

"""Student-oriented teacher knowledge refinement (SoKD), arXiv 2409.18785.

    L = hard_weight * CE(z, y) + feature_weight * MSE(M f_s, M f_t') + area_weight * D(f_s, f_t)
    f_s  the student's last feature map after a regressor to the shape of the teacher's f_t
    f_t' f_t after a drawn sub-policy, a pair of operations (``models/feature_policy.py``)
    M    1 inside of the areas found on f_s, 0 outside
    D    mean squared difference of what the area module says of both maps (``models/areas.py``)

In the first ``search_share`` of the run a policy is searched for. The second half of each batch is
then held out: its feature loss is minimised by the policy alone, at the weights that the student
has before this step, and the first half teaches the student. The choices get the score-function
gradient, the magnitudes a straight-through one. Afterwards the policy stays as it is and is still
drawn from.
Such a policy learns how to bring the teacher's map near to the student's. Whether that helps is
decided by ``policy: random``, which also rests the second half.

After a repository that is very likely the authors' (FabienCode/mdistiller); the paper's text was
not at hand. Ours: the first-order outer step (there: one unrolled step, by finite differences), the
leave-one-out baseline (there: RELAX with a learned control variate, here ``estimator: relax``), a
draw for each sample (there: one for a batch), all pairs of operations (there: 35 of 36), the run's
optimizer for the policy (there: Adam, 3e-4), areas of the plain map f_t, ``area_supervision``,
``num_areas``, the union of the areas as mask (there: their sum), corners that are rounded and
clipped, channels of the shuffle (there: all), noise relative to the map's deviation. Defects
that are not copied: (a) sub-policies drawn anew inside of the search; (b) one batch for both of its
levels; (c) augmentation where it is off; (d) the log-probability of a pair counted once for each
chance; (e) a final ReLU that lets sizes die, and an area module that a constant satisfies; (f) 8
areas on maps of 64 cells; (g) shifts in pixels where a map counts from -1 to 1; (h) the weight of
1000; (i) copies of the optimizer and of a net in each step.

Each student has a policy, an area module and a regressor of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.ranges import Count, NotNegative, Share
from kd_lightning.base.streams import seed_stream
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.feature_distance import feature_mse
from kd_lightning.methods.checks import check_weights
from kd_lightning.methods.distiller import Distiller
from kd_lightning.methods.feature_distillation import shapes_for
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.models.areas import AreaModule, area_distance, area_mask, class_logits
from kd_lightning.models.feature_policy import FeaturePolicy, LearnedPolicy
from kd_lightning.models.layer_outputs import LayerOutputs, Shape, check_layer
from kd_lightning.models.map_operations import operations_of
from kd_lightning.models.map_regressor import map_regressor
from kd_lightning.models.net_stages import last_map
from kd_lightning.models.relaxed_policy import RelaxedPolicy

POLICIES = {"none": None, "random": FeaturePolicy, "learned": LearnedPolicy}
ESTIMATORS = {"leave_one_out": LearnedPolicy, "relax": RelaxedPolicy}
AREAS = {"none": None, "learned": AreaModule}
CELLS_OF_AN_AREA = 16  # of the map, for each area that is looked for


class StudentOriented(Distiller):
    """Each student imitates an augmented feature map of its teacher, inside of some areas.

    Args:
        input_shape: of one sample: (channels, height, width) or (channels, length).
        policy: of the augmentation: "none", "random" or "learned".
        estimator: of the gradient of a learned policy's choices: "leave_one_out" or "relax".
        search_share: of the run, in which the policy learns; 0: it never does.
        areas: "none": the whole map; "learned".
        num_areas: of a map, at most; None: one for each 16 cells.
        hard_weight: of the labels.
        feature_weight: of the map.
        area_weight: of the difference of both nets' areas.
        area_supervision: weight of the labels for the heat of the teacher's map.
        student_layer: of every student; None: its last feature map.
        teacher_layer: None: its last feature map.

    Attributes:
        is_searching: whether the second half of a batch is held out for the policy.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        policy: str = "learned",
        estimator: str = "leave_one_out",
        search_share: Share = 0.1,
        areas: str = "learned",
        num_areas: Count | None = None,
        hard_weight: NotNegative = 1.0,
        feature_weight: NotNegative = 1.0,
        area_weight: NotNegative = 1.0,
        area_supervision: NotNegative = 0.1,
        student_layer: str | None = None,
        teacher_layer: str | None = None,
        **distiller: Any,
    ) -> None:
        super().__init__(**distiller)
        check_weights(
            hard_weight=hard_weight, feature_weight=feature_weight, area_weight=area_weight
        )
        check_options(policy, estimator, areas)
        self.hard_weight = hard_weight
        self.feature_weight = feature_weight
        self.area_weight = area_weight
        self.area_supervision = area_supervision
        self.search_share = search_share
        self.learns_policy = policy == "learned"
        self.estimator = estimator
        policies = POLICIES | {"learned": ESTIMATORS[estimator]}
        self.is_searching = policy != "none" and search_share > 0
        self.regressors, self.areas, self.policies = (nn.ModuleDict() for _ in range(3))
        self.teacher_name, shape = find_map(
            self.teacher,
            input_shape,
            teacher_layer,
            whose="the teacher",
            keys=("model@method.teacher", "method.teacher_layer"),
        )
        self.teacher_layers = LayerOutputs(self.teacher, [self.teacher_name])
        self.num_areas = num_areas or max(1, shape[1:].numel() // CELLS_OF_AN_AREA)
        self.student_names: dict[str, str] = {}
        self.student_layers: dict[str, LayerOutputs] = {}
        for key, net in self.students.items():
            name, own_shape = find_map(
                net,
                input_shape,
                student_layer,
                whose=f"student {key}",
                keys=(f"model@method.students.{key}", "method.student_layer"),
            )
            self.student_names[key] = name
            self.student_layers[key] = LayerOutputs(net, [name])
            self._add_modules(key, own_shape, shape, policies[policy], AREAS[areas])

    def _add_modules(
        self,
        key: str,
        student_shape: Shape,
        teacher_shape: Shape,
        policy: type[FeaturePolicy] | None,
        areas: type[AreaModule] | None,
    ) -> None:
        """A student's regressor, policy and area module."""
        seed_stream(self.seed, "regressor", key)
        self.regressors[key] = map_regressor(student_shape, teacher_shape)
        if areas is not None:
            seed_stream(self.seed, "areas", key)
            self.areas[key] = areas(teacher_shape, self.num_classes)
        if policy is not None:
            seed_stream(self.seed, "policy", key)
            self.policies[key] = policy(operations_of(len(teacher_shape) - 1))

    def own_modules(self) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module] = {}
        for key, regressor in self.regressors.items():
            parts = [regressor, self.areas[key]] if key in self.areas else [regressor]
            modules[key] = nn.ModuleList(parts)
        if self.learns_policy:
            modules |= {f"policy_{key}": policy for key, policy in self.policies.items()}
        return modules

    @property
    def has_unused_parameters(self) -> bool:
        return self.learns_policy  # the policy has no gradient when its search is over

    def unsupported(self) -> dict[str, str]:
        reasons = {"cache": "it needs layers of the teacher, which a cache does not hold"}
        if self.learns_policy and self.estimator == "relax":
            reasons["compile"] = "method.estimator=relax computes gradients inside of its losses"
        return reasons

    def on_train_epoch_start(self) -> None:
        self.is_searching = bool(self.policies) and self.progress < self.search_share

    @property
    def step_variant(self) -> bool:
        return self.is_searching

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        with self.teacher_layers.record() as outputs, torch.no_grad():
            self.teacher(x)  # not its fast copy, where layers may be folded away
        target = outputs[self.teacher_name].float()
        terms: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        for key in self.students:
            with self.student_layers[key].record() as outputs:
                student = self.forward_student(key, x)
            made = self.regressors[key](outputs[self.student_names[key]]).float()
            terms[f"{key}/hard"] = self.hard_weight * label_cross_entropy(student.logits, y).mean()
            mask = None
            if key in self.areas:
                mask, of_areas = self.area_terms(key, made, target, y)
                terms |= of_areas
                metrics[f"areas/coverage_{key}"] = mask.float().mean()
            terms |= self.feature_terms(key, made, target, mask)
            if self.learns_policy:
                statistics = self.policies[key].statistics()
                metrics |= {f"policy/{name}_{key}": value for name, value in statistics.items()}
        return Losses(terms, metrics)

    def area_terms(
        self,
        key: str,
        made: Float[Tensor, "B D *size"],
        target: Float[Tensor, "B D *size"],
        y: Tensor,
    ) -> tuple[Bool[Tensor, "B 1 *size"], Mapping[str, Tensor]]:
        """The mask of the student's areas, and the terms that train the area module."""
        mine, theirs = self.areas[key](made), self.areas[key](target)
        terms = {f"{key}/area": self.area_weight * area_distance(mine, theirs).mean()}
        if self.area_supervision > 0:
            heat = label_cross_entropy(class_logits(theirs), y).mean()
            terms[f"{key}/area_supervision"] = self.area_supervision * heat
        return area_mask(mine, self.num_areas), terms

    def feature_terms(
        self,
        key: str,
        made: Float[Tensor, "B D *size"],
        target: Float[Tensor, "B D *size"],
        mask: Bool[Tensor, "B 1 *size"] | None,
    ) -> Mapping[str, Tensor]:
        """What the student imitates, and in the search what the policy does."""
        draw = None
        if key in self.policies:
            self.seed_step_stream("policy", key)
            draw = self.policies[key].draw(len(made))
            target = self.policies[key](target, draw)
        if mask is not None:
            made, target = mask * made, mask * target
        made, target = made.flatten(1), target.flatten(1)
        taught = len(made) - (len(made) // 2 if self.is_searching else 0)
        feature = feature_mse(made[:taught], target[:taught].detach()).mean()
        terms = {f"{key}/feature": self.feature_weight * feature}
        if self.learns_policy:
            held_out = feature_mse(made[taught:].detach(), target[taught:])
            its_draw = type(draw)(*(values[taught:] for values in draw))
            for name, loss in self.policies[key].terms(held_out, its_draw).items():
                if not self.is_searching:  # a gradient of 0 would let an optimizer move the policy
                    loss = loss.detach()
                terms[f"{key}/{name}"] = self.feature_weight * loss
        return terms


def check_options(policy: str, estimator: str, areas: str) -> None:
    """Raises ``UserError`` for the first option that has no meaning."""
    if policy not in POLICIES:
        raise unknown("policy", policy, POLICIES, "method.policy")
    if estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, ESTIMATORS, "method.estimator")
    if areas not in AREAS:
        raise unknown("choice of areas", areas, AREAS, "method.areas")


def find_map(
    net: nn.Module,
    input_shape: Sequence[int],
    layer: str | None,
    *,
    whose: str,
    keys: tuple[str, str],
) -> tuple[str, torch.Size]:
    """The layer of a net whose feature map is compared, and the shape of this map.

    Args:
        layer: its name; None: the net's last feature map.
        whose: the net, as a message names it.
        keys: that choose the net and the layer.

    Raises:
        UserError: there is no such layer, or it gives no map of several cells.
    """
    net_key, layer_key = keys
    shapes: Mapping[str, Shape] = shapes_for(net, input_shape)
    if layer is not None:
        check_layer(layer, net, shapes, whose, layer_key)
    elif found := last_map(net, input_shape):
        layer, _ = found
    else:
        raise UserError(
            f"{whose} has no feature map, which this method needs: choose a convolutional net "
            f"({net_key}=…)"
        )
    shape = torch.Size(shapes[layer])
    if shape[1:].numel() < 2:
        raise UserError(
            f"layer {layer} of {whose} must give a feature map of several cells, got the shape "
            f"{tuple(shape)}: choose an earlier layer ({layer_key}=…)"
        )
    return layer, shape

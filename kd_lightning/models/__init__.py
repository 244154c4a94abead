"""The nets, and what is done with them. Each net takes raw input and returns ``ModelOutput``.

Factories of nets: ``cifar.py``, ``time_series.py``, ``perceptron.py``, ``timm_nets.py``; each
returns a ``Classifier``, and ``by_shape.py`` chooses among them. The other modules load weights,
average them, sample dropout passes, record the outputs of layers, and make a fast copy of a net
that is no longer trained.
"""

from kd_lightning.models.areas import (
    AreaMaps,
    AreaModule,
    area_distance,
    area_mask,
    class_logits,
)
from kd_lightning.models.assemble import (
    CheckedPrepare,
    CommonArguments,
    GlobalAverage,
    build_classifier,
    build_trunk,
    select_rows,
)
from kd_lightning.models.averages import (
    are_alike,
    check_alike,
    mean_state,
    move_averages,
    refresh_batch_norm,
)
from kd_lightning.models.by_shape import net_by_shape
from kd_lightning.models.checkpoint_facts import Facts
from kd_lightning.models.checkpoints import Checkpoint, read_checkpoint
from kd_lightning.models.cifar import (
    mobilenetv2,
    resnet,
    shufflenetv1,
    shufflenetv2,
    vgg,
    wide_resnet,
)
from kd_lightning.models.classifier import Classifier, Prepare, check_rate
from kd_lightning.models.ensemble import Ensemble
from kd_lightning.models.feature_policy import (
    Draw,
    FeaturePolicy,
    LearnedPolicy,
    log_probs_of_switches,
)
from kd_lightning.models.feature_pyramid import FeaturePyramid
from kd_lightning.models.folding import fold_batch_norms
from kd_lightning.models.inference import (
    CompiledClassifier,
    PrecisionWrapper,
    checked_fast_copy,
    fast_copy,
    no_autocast,
    relative_rms_error,
    teacher_precision,
    to_channels_last,
)
from kd_lightning.models.layer_outputs import (
    LayerOutputs,
    check_layer,
    layer_shapes,
    learning_layers,
)
from kd_lightning.models.map_layers import conv_norm_relu, resize_map
from kd_lightning.models.map_operations import apply_operations, operations_of
from kd_lightning.models.modes import in_mode
from kd_lightning.models.net_stages import require_stages
from kd_lightning.models.outputs import ModelOutput
from kd_lightning.models.perceptron import mlp
from kd_lightning.models.projected import projected_resnet
from kd_lightning.models.relaxed_policy import RelaxedDraw, RelaxedPolicy
from kd_lightning.models.review_fusion import AttentionFusion, ReviewFusion
from kd_lightning.models.stage_branches import LinearBranch, StudentBranch, stage_pairs
from kd_lightning.models.stochastic import (
    active_dropouts,
    drop_features,
    dropout_on,
    has_deterministic_features,
    require_dropout,
    sample_features,
    sample_logits,
)
from kd_lightning.models.tails import tail_after
from kd_lightning.models.time_series import fcn, inception_time, resnet1d
from kd_lightning.models.timm_nets import timm_classifier, timm_facts, timm_statistics
from kd_lightning.models.weights import Loaded, load_weights

__all__ = [
    "AreaMaps",
    "AreaModule",
    "AttentionFusion",
    "CheckedPrepare",
    "Checkpoint",
    "Classifier",
    "CommonArguments",
    "CompiledClassifier",
    "Draw",
    "Ensemble",
    "Facts",
    "FeaturePolicy",
    "FeaturePyramid",
    "GlobalAverage",
    "LayerOutputs",
    "LearnedPolicy",
    "LinearBranch",
    "Loaded",
    "ModelOutput",
    "PrecisionWrapper",
    "Prepare",
    "RelaxedDraw",
    "RelaxedPolicy",
    "ReviewFusion",
    "StudentBranch",
    "active_dropouts",
    "apply_operations",
    "are_alike",
    "area_distance",
    "area_mask",
    "build_classifier",
    "build_trunk",
    "check_alike",
    "check_layer",
    "check_rate",
    "checked_fast_copy",
    "class_logits",
    "conv_norm_relu",
    "drop_features",
    "dropout_on",
    "fast_copy",
    "fcn",
    "fold_batch_norms",
    "has_deterministic_features",
    "in_mode",
    "inception_time",
    "layer_shapes",
    "learning_layers",
    "load_weights",
    "log_probs_of_switches",
    "mean_state",
    "mlp",
    "mobilenetv2",
    "move_averages",
    "net_by_shape",
    "no_autocast",
    "operations_of",
    "projected_resnet",
    "read_checkpoint",
    "refresh_batch_norm",
    "relative_rms_error",
    "require_dropout",
    "require_stages",
    "resize_map",
    "resnet",
    "resnet1d",
    "sample_features",
    "sample_logits",
    "select_rows",
    "shufflenetv1",
    "shufflenetv2",
    "stage_pairs",
    "tail_after",
    "teacher_precision",
    "timm_classifier",
    "timm_facts",
    "timm_statistics",
    "to_channels_last",
    "vgg",
    "wide_resnet",
]

"""Distillation losses: pure functions of tensors, one value per sample.

For labels (``label_cross_entropy``), for the soft targets of a teacher or a peer
(``soft_target_kl``, ``dkd_soft_loss``, ``dist_soft_loss``, ``mlkd_soft_loss``), and for features
(``feature_mse``, ``FitNet``, ``AttentionTransfer``, ``Relational``, ``VariationalInformation``,
``Overhaul``, ``ContrastiveRepresentation``, ``ContrastWithMemory``, ``MutualInformation``,
``MatchedChannels``). Also the guidance of student-guided distillation, and a temperature that
learns (``LearnedTemperature``).
"""

from kd_lightning.losses.attacks import as_floats, pgd
from kd_lightning.losses.attention_transfer import (
    AttentionTransfer,
    attention_map,
    attention_transfer_loss,
)
from kd_lightning.losses.channel_matching import (
    MatchedChannels,
    channel_correlation,
    greedy,
    one_to_one,
    ridge_matrix,
)
from kd_lightning.losses.contrast_memory import ContrastWithMemory
from kd_lightning.losses.crd import ContrastiveRepresentation, contrastive_loss
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.dist import dist_soft_loss, pearson_correlation
from kd_lightning.losses.dkd import dkd_soft_loss
from kd_lightning.losses.feature_distance import (
    active_squared_distance,
    feature_cosine,
    feature_mse,
)
from kd_lightning.losses.feature_loss import (
    FeatureLoss,
    ShapeMismatch,
    average_pool,
    pool_to_smaller,
    unit_features,
)
from kd_lightning.losses.fitnet import FitNet
from kd_lightning.losses.guidance import (
    Guidance,
    attention_guidance,
    attention_weights,
    cosine_similarity,
    dot_similarity,
    filter_by_percentile,
    filter_by_top_k,
    guided_target,
    mean_guidance,
    nearest_guidance,
    num_kept_samples,
    similarity_to_target,
    weight_entropy,
)
from kd_lightning.losses.hashing import hashing_loss
from kd_lightning.losses.hierarchical_context import hierarchical_context_loss
from kd_lightning.losses.learned_temperature import LearnedTemperature, reversed_gradient
from kd_lightning.losses.logit_standardization import standardize
from kd_lightning.losses.mixed_targets import mixed_logits
from kd_lightning.losses.mlkd import mlkd_soft_loss
from kd_lightning.losses.mutual_information import (
    Critic,
    MutualInformation,
    jsd_estimate,
    nce_estimate,
)
from kd_lightning.losses.overhaul import Overhaul, partial_squared_distance
from kd_lightning.losses.relational import Relational, relational_angle, relational_distance
from kd_lightning.losses.relax import (
    relax_gradient,
    relaxed_choice,
    relaxed_switch,
    resampled_choice,
    resampled_switch,
)
from kd_lightning.losses.score_function import score_function_mean
from kd_lightning.losses.similarity_tables import cosine_table, kept_rows, mean_of_kept
from kd_lightning.losses.soft_targets import (
    joint_soft_kl,
    kl_soft_loss,
    mean_log_probs,
    reverse_kl_soft_loss,
    soft_log_probs,
    soft_target_kl,
    soft_target_kl_to,
)
from kd_lightning.losses.vid import VariationalInformation

__all__ = [
    "AttentionTransfer",
    "ContrastWithMemory",
    "ContrastiveRepresentation",
    "Critic",
    "FeatureLoss",
    "FitNet",
    "Guidance",
    "LearnedTemperature",
    "MatchedChannels",
    "MutualInformation",
    "Overhaul",
    "Relational",
    "ShapeMismatch",
    "VariationalInformation",
    "active_squared_distance",
    "as_floats",
    "attention_guidance",
    "attention_map",
    "attention_transfer_loss",
    "attention_weights",
    "average_pool",
    "channel_correlation",
    "contrastive_loss",
    "cosine_similarity",
    "cosine_table",
    "dist_soft_loss",
    "dkd_soft_loss",
    "dot_similarity",
    "feature_cosine",
    "feature_mse",
    "filter_by_percentile",
    "filter_by_top_k",
    "greedy",
    "guided_target",
    "hashing_loss",
    "hierarchical_context_loss",
    "joint_soft_kl",
    "jsd_estimate",
    "kept_rows",
    "kl_soft_loss",
    "label_cross_entropy",
    "mean_guidance",
    "mean_log_probs",
    "mean_of_kept",
    "mixed_logits",
    "mlkd_soft_loss",
    "nce_estimate",
    "nearest_guidance",
    "num_kept_samples",
    "one_to_one",
    "partial_squared_distance",
    "pearson_correlation",
    "pgd",
    "pool_to_smaller",
    "relational_angle",
    "relational_distance",
    "relax_gradient",
    "relaxed_choice",
    "relaxed_switch",
    "resampled_choice",
    "resampled_switch",
    "reverse_kl_soft_loss",
    "reversed_gradient",
    "ridge_matrix",
    "score_function_mean",
    "similarity_to_target",
    "soft_log_probs",
    "soft_target_kl",
    "soft_target_kl_to",
    "standardize",
    "unit_features",
    "weight_entropy",
]

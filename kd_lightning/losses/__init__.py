"""Distillation losses: pure functions of tensors, one value per sample.

For labels (``label_cross_entropy``), for the soft targets of a teacher or a peer
(``soft_target_kl``, ``dkd_soft_loss``, ``dist_soft_loss``), and for features (``feature_mse``,
``FitNet``, ``AttentionTransfer``, ``Relational``). Also the guidance of student-guided
distillation.
"""

from kd_lightning.losses.attention_transfer import (
    AttentionTransfer,
    attention_map,
    attention_transfer_loss,
)
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.dist import dist_soft_loss, pearson_correlation
from kd_lightning.losses.dkd import dkd_soft_loss
from kd_lightning.losses.feature_distance import feature_cosine, feature_mse
from kd_lightning.losses.feature_loss import (
    FeatureLoss,
    ShapeMismatch,
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
from kd_lightning.losses.logit_standardization import standardize
from kd_lightning.losses.relational import Relational, relational_angle, relational_distance
from kd_lightning.losses.score_function import score_function_mean
from kd_lightning.losses.soft_targets import (
    kl_soft_loss,
    mean_log_probs,
    soft_log_probs,
    soft_target_kl,
    soft_target_kl_to,
)

__all__ = [
    "AttentionTransfer",
    "FeatureLoss",
    "FitNet",
    "Guidance",
    "Relational",
    "ShapeMismatch",
    "attention_guidance",
    "attention_map",
    "attention_transfer_loss",
    "attention_weights",
    "cosine_similarity",
    "dist_soft_loss",
    "dkd_soft_loss",
    "dot_similarity",
    "feature_cosine",
    "feature_mse",
    "filter_by_percentile",
    "filter_by_top_k",
    "guided_target",
    "kl_soft_loss",
    "label_cross_entropy",
    "mean_guidance",
    "mean_log_probs",
    "nearest_guidance",
    "num_kept_samples",
    "pearson_correlation",
    "pool_to_smaller",
    "relational_angle",
    "relational_distance",
    "score_function_mean",
    "similarity_to_target",
    "soft_log_probs",
    "soft_target_kl",
    "soft_target_kl_to",
    "standardize",
    "unit_features",
    "weight_entropy",
]

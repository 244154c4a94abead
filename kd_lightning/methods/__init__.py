"""The methods: each a LightningModule whose ``losses`` reads like the paper's algorithm.

``Learner`` is the base of all, ``Distiller`` of those with a frozen teacher. CONTRIBUTING.md shows
how a method is written.
"""

from kd_lightning.methods.adversarial_distillation import AdversarialDistillation
from kd_lightning.methods.adversarial_training import AdversarialTraining
from kd_lightning.methods.base import Learner
from kd_lightning.methods.consistent_features import ConsistentFeatures
from kd_lightning.methods.diffusion_distillation import DiffusionDistillation
from kd_lightning.methods.distiller import Distiller
from kd_lightning.methods.dual_student import DualStudent
from kd_lightning.methods.feature_distillation import FeatureDistillation
from kd_lightning.methods.kd import KnowledgeDistillation
from kd_lightning.methods.knowledge_review import KnowledgeReview
from kd_lightning.methods.mean_teacher import MeanTeacher
from kd_lightning.methods.multi_granularity import MultiGranularity
from kd_lightning.methods.mutual_learning import MutualLearning
from kd_lightning.methods.r_drop import RDrop
from kd_lightning.methods.self_supervision import SelfSupervision
from kd_lightning.methods.semantic_distillation import SemanticDistillation
from kd_lightning.methods.stage import Stage
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.methods.stochastic_self_distillation import StochasticSelfDistillation
from kd_lightning.methods.student_friendly import StudentFriendly
from kd_lightning.methods.student_oriented import StudentOriented
from kd_lightning.methods.supervised import Supervised
from kd_lightning.methods.teacher_evolution import TeacherEvolution
from kd_lightning.methods.uncertainty_mixup import UncertaintyMixup
from kd_lightning.methods.views import rotations

__all__ = [
    "AdversarialDistillation",
    "AdversarialTraining",
    "Cached",
    "ConsistentFeatures",
    "DiffusionDistillation",
    "Distiller",
    "DualStudent",
    "FeatureDistillation",
    "KnowledgeDistillation",
    "KnowledgeReview",
    "Learner",
    "Losses",
    "MeanTeacher",
    "MultiGranularity",
    "MutualLearning",
    "RDrop",
    "SelfSupervision",
    "SemanticDistillation",
    "Stage",
    "StochasticSelfDistillation",
    "StudentFriendly",
    "StudentOriented",
    "Supervised",
    "TeacherEvolution",
    "UncertaintyMixup",
    "rotations",
]

"""Adversarial training with PGD, Madry et al. 2017 (arXiv 1706.06083), as a robust teacher is made.

    L = CE(z(x'), y),    x' = argmax_{|x' - x| <= epsilon} CE(z(x'), y)   (L-inf)

After the paper's description. The epoch with the highest accuracy under attack on val is chosen,
which is the early stopping of Rice, Wong and Kolter 2020 (arXiv 2002.11569): later epochs are
better on the training samples alone. It is the control of ``adversarial_distillation``, without a
teacher.
"""

from functools import partial

from torch import Tensor

from kd_lightning.losses.attacks import as_floats
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.methods.adversarial_learner import AdversarialLearner
from kd_lightning.methods.step import Cached, Losses


class AdversarialTraining(AdversarialLearner):
    """Cross-entropy with the labels on attacked samples, for each student by itself.

    Its arguments are those of ``AdversarialLearner``.
    """

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        x = as_floats(x)
        terms = {}
        for key in self.students:
            objective = partial(label_cross_entropy, labels=y)
            attacked = self.attacked(key, x, objective, mode=self.attack_mode)
            student = self.forward_student(key, attacked)
            terms[f"{key}/hard"] = label_cross_entropy(student.logits, y).mean()
        return Losses(terms)

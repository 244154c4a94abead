"""A net of one's own that does not suit is refused before anything is trained."""

import pytest
from helpers import net
from omegaconf import OmegaConf
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.running.build import check_net

TASK = OmegaConf.create({"shape": [3, 2, 2], "num_classes": 3})


def test_a_net_that_suits_keeps_its_mode() -> None:
    own = net().train()
    check_net(own, TASK, "method.teacher")
    assert own.training


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.Linear(12, 3)),
            r"method.teacher must return ModelOutput\(logits, features\), as a Classifier does, "
            r"got Tensor: make it of a trunk and a head \(model@method.teacher=…\)",
        ),
        (
            nn.Linear(7, 3),
            r"method.teacher must take samples of shape \(3, 2, 2\), and it does not \(.*mat1 and "
            r"mat2 shapes cannot be multiplied .*\): choose another net",
        ),
        (net(classes=5), "must have the data's 3 classes, it has 5"),
    ],
)
def test_one_sentence_says_what_is_wrong(own: nn.Module, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_net(own, TASK, "method.teacher")

import pytest
import torch
from helpers import net

from kd_lightning.base.errors import UserError
from kd_lightning.models.cifar import resnet
from kd_lightning.models.ensemble import Ensemble
from kd_lightning.models.inference import checked_fast_copy

X = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))


def nets(count: int) -> list:
    torch.manual_seed(0)
    return [net(features=4 + i) for i in range(count)]


def test_the_prediction_is_the_mean_of_the_probabilities() -> None:
    members = nets(3)
    mean = torch.stack([one(X).logits.softmax(1) for one in members]).mean(0)
    torch.testing.assert_close(Ensemble(members)(X).logits.exp(), mean)


def test_a_net_with_itself_predicts_as_it_does_alone() -> None:
    (member,) = nets(1)
    torch.testing.assert_close(
        Ensemble([member, member])(X).logits, member(X).logits.log_softmax(1)
    )


@pytest.mark.parametrize("part", ["trunk", "head", "features"])
def test_it_has_only_logits_and_says_so_in_one_sentence(part: str) -> None:
    ensemble = Ensemble(nets(2))
    with pytest.raises(UserError, match=r"name one teacher \(teacher.source=…\)"):
        getattr(ensemble, part)
    with pytest.raises(UserError, match="needs more of a teacher than its logits"):
        _ = ensemble(X).features


def test_its_state_is_that_of_its_nets() -> None:
    members = nets(2)
    state = Ensemble(members).state_dict()
    for i, member in enumerate(members):
        for name, value in member.state_dict().items():
            assert torch.equal(state[f"nets.{i}.{name}"], value)


def test_each_of_its_nets_gets_a_fast_copy() -> None:
    torch.manual_seed(0)
    options = {"depth": 8, "widths": [4, 4, 8, 8], "num_classes": 3, "in_chans": 3}
    several = Ensemble([resnet(**options).eval() for _ in range(2)])
    x = torch.rand(4, 3, 8, 8)
    fast = checked_fast_copy(several, x)
    assert fast is not several
    assert not any("BatchNorm" in type(m).__name__ for m in fast.modules())
    torch.testing.assert_close(fast(x).logits, several(x).logits, rtol=1e-4, atol=1e-5)

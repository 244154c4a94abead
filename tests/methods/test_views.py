import pytest
import torch

from kd_lightning.base.errors import UserError
from kd_lightning.data.augmentation import RandomHorizontalFlip
from kd_lightning.methods.supervised import Supervised
from kd_lightning.methods.views import rotations


def test_row_v_times_b_plus_i_is_view_v_of_sample_i() -> None:
    x = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4)
    views = rotations(x)
    assert views.shape == (8, 3, 4, 4)
    assert torch.equal(views[:2], x)
    assert torch.equal(views[2 * 2 + 1], x[1].flip(1, 2))
    top_right = x[0, 0, 0, 3]
    assert views[1 * 2 + 0, 0, 0, 0] == top_right  # a quarter turn to the left


def test_four_quarter_turns_are_none() -> None:
    x = torch.rand(2, 1, 5, 5)
    turned = x
    for _ in range(4):
        turned = rotations(turned)[len(x) : 2 * len(x)]
    assert torch.equal(turned, x)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 9)])
def test_what_is_no_square_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"square images, got samples of shape \(3, .*image_size"):
        rotations(torch.zeros(shape))


def test_a_further_view_follows_from_seed_name_and_step(monkeypatch: pytest.MonkeyPatch) -> None:
    x, flip = torch.rand(64, 1, 4, 4), RandomHorizontalFlip(p=0.5)

    def view(seed: int, name: str, step: int) -> torch.Tensor:
        monkeypatch.setattr(Supervised, "_batches_started", step)
        net = torch.nn.Linear(1, 1)
        method = Supervised(
            students={"student": net}, num_classes=2, optimizer=torch.optim.SGD, seed=seed
        )
        torch.rand(3)  # not from the state of the default generator
        return method.augment(x, flip, name)

    first = view(0, "strong", 0)
    assert torch.equal(view(0, "strong", 0), first)
    for other in ((1, "strong", 0), (0, "weak", 0), (0, "strong", 1)):
        assert not torch.equal(view(*other), first)
    flipped = (first == x.flip(3)).flatten(1).all(1)
    assert (flipped | (first == x).flatten(1).all(1)).all()
    assert 16 < flipped.sum() < 48

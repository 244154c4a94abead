import pytest
import torch

from kd_lightning.base.errors import UserError
from kd_lightning.data.augmentation import RandomHorizontalFlip
from kd_lightning.methods.supervised import Supervised
from kd_lightning.methods.views import (
    SERIES_VIEWS,
    jitter,
    reverse,
    rotations,
    scaling,
    segment_permutation,
    sign_flip,
    views_for,
)


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


# Views of time series


SERIES = torch.tensor([[[1.0, 2, 3, 6], [5, 5, 5, 5]]])


def test_reverse_and_sign_flip_are_as_they_are_written() -> None:
    assert torch.equal(reverse(SERIES), torch.tensor([[[6.0, 3, 2, 1], [5, 5, 5, 5]]]))
    assert torch.equal(sign_flip(SERIES), torch.tensor([[[5.0, 4, 3, 0], [5, 5, 5, 5]]]))


def test_scaling_has_one_factor_for_all_channels_of_a_series() -> None:
    x = torch.randn(500, 2, 9) + 7
    scaled = scaling(x, 0.5)
    factors = (scaled - x.mean(2, keepdim=True)) / (x - x.mean(2, keepdim=True))
    torch.testing.assert_close(factors, factors[:, :1, :1].expand_as(x), rtol=1e-2, atol=1e-2)
    assert factors[:, 0, 0].mean().item() == pytest.approx(1, abs=0.1)
    assert factors[:, 0, 0].std().item() == pytest.approx(0.5, abs=0.1)
    torch.testing.assert_close(scaling(x, 0.0), x)


def test_noise_is_a_share_of_the_deviation_of_its_channel() -> None:
    x = torch.randn(50, 2, 400) * torch.tensor([[[1.0], [10.0]]])
    noise = jitter(x, 0.3) - x
    torch.testing.assert_close(noise.std((0, 2)), torch.tensor([0.3, 3.0]), rtol=0.05, atol=0)
    assert torch.equal(jitter(SERIES)[:, 1], SERIES[:, 1])  # a constant channel has no deviation


def test_segments_change_places_together_and_what_is_left_over_stays() -> None:
    x = torch.arange(14.0).expand(200, 2, 14)
    moved = segment_permutation(x, 4)
    assert torch.equal(moved[..., 12:], x[..., 12:])
    segments = moved[..., :12].unflatten(2, (4, 3))
    assert torch.equal(segments.sort(dim=2).values, x[..., :12].unflatten(2, (4, 3)))
    assert torch.equal(segments[:, 0], segments[:, 1])  # the same order in all channels
    assert len({tuple(one.tolist()) for one in segments[:, 0, :, 0]}) == 24
    assert torch.equal(segment_permutation(SERIES, 5), SERIES)


@pytest.mark.parametrize("name", SERIES_VIEWS)
def test_a_view_keeps_shape_and_type_and_follows_from_the_generators(name: str) -> None:
    x, ends = torch.randn(3, 2, 8), []
    for _ in range(2):
        torch.manual_seed(3)
        ends.append(SERIES_VIEWS[name](x))
    assert torch.equal(*ends)
    assert ends[0].shape == x.shape
    assert ends[0].dtype == x.dtype
    assert not torch.equal(ends[0], x)


def test_the_views_of_images_are_rotations_and_of_series_those_named() -> None:
    assert views_for((3, 4, 4), [], "a") == (4, rotations)
    count, make = views_for((2, 4), ["sign_flip", "reverse"], "a")
    assert count == 3
    assert torch.equal(make(SERIES), torch.cat([SERIES, sign_flip(SERIES), reverse(SERIES)]))

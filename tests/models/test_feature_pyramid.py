"""Branches on the stages of a net."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.models.feature_pyramid import FeaturePyramid

IMAGES = [(4, 8, 8), (6, 4, 4), (10, 2, 2)]
SERIES = [(4, 12), (6, 12), (10, 12)]


def maps(shapes: list[tuple], size: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, *shape, generator=generator) for shape in shapes]


def pyramid(shapes: list[tuple], width: int | None = None) -> FeaturePyramid:
    torch.manual_seed(0)
    return FeaturePyramid(shapes, 5, width)


@pytest.mark.parametrize("shapes", [IMAGES, SERIES, [(4, 9, 7), (6, 5, 4), (10, 3, 2)], IMAGES[1:]])
@pytest.mark.parametrize("width", [None, 3])
def test_each_stage_but_the_last_has_a_branch_with_the_channels_of_the_last_map(
    shapes: list, width: int | None
) -> None:
    outputs = pyramid(shapes, width)(maps(shapes))
    assert len(outputs) == len(shapes) - 1
    for output in outputs:
        assert output.logits.shape == (3, 5)
        assert output.features.shape == (3, 10)
        assert (output.features >= 0).all()


def test_a_branch_is_its_formula() -> None:
    net = pyramid(IMAGES[1:]).eval()
    stage, last = maps(IMAGES[1:])
    up = net.steps[0].up(F.interpolate(net.last(last), (4, 4), mode="bilinear", align_corners=True))
    fused = net.steps[0].fuse(torch.cat([up + net.laterals[0](stage), up], 1))
    head = net.heads[0]
    features = head.project(head.shrink(fused)).mean((2, 3))
    (output,) = net([stage, last])
    torch.testing.assert_close(output.features, features)
    torch.testing.assert_close(output.logits, head.head(features))


def test_a_branch_ends_at_the_size_of_the_last_map() -> None:
    strides = [head.shrink[0].stride for head in pyramid(IMAGES).heads]
    assert strides == [(2, 2), (4, 4)]
    assert [head.shrink[0].stride for head in pyramid(SERIES).heads] == [(1,), (1,)]


def test_a_branch_reads_its_stage_and_those_after_it() -> None:
    stages = [one.requires_grad_() for one in maps(IMAGES)]
    for branch, reads in zip(pyramid(IMAGES)(stages), [[1, 2], [0, 1, 2]], strict=True):
        gradients = torch.autograd.grad(
            branch.logits.square().sum(), stages, retain_graph=True, allow_unused=True
        )
        assert [n for n, one in enumerate(gradients) if one is not None and one.any()] == reads


def test_the_width_is_that_of_all_convolutions_inside() -> None:
    widths = {step.fuse[0].out_channels for step in pyramid(IMAGES, 3).steps}
    assert widths == {3}
    assert {step.fuse[0].out_channels for step in pyramid(IMAGES).steps} == {10}


def test_one_sample_is_enough() -> None:
    assert all(one.logits.isfinite().all() for one in pyramid(IMAGES).train()(maps(IMAGES, 1)))

import pytest
import torch
from torch import Tensor, nn

from kd_lightning.models.review_fusion import AttentionFusion, ReviewFusion

MINE = [(4, 8, 8), (6, 4, 4), (8, 2, 2)]
THEIRS = [(5, 16, 16), (7, 4, 4), (9, 2, 2)]


def maps(shapes: list[tuple[int, ...]], size: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, *shape, generator=generator).requires_grad_() for shape in shapes]


def test_each_prediction_has_the_shape_of_the_teachers_map() -> None:
    for mine, theirs in ((MINE, THEIRS), ([s[:2] for s in MINE], [s[:2] for s in THEIRS])):
        predictions = ReviewFusion(mine, theirs)(maps(mine))
        assert [tuple(p.shape[1:]) for p in predictions] == theirs


def reached(review: bool) -> list[list[bool]]:
    """For each prediction: which stages of the student its gradient reaches."""
    fusion, inputs = ReviewFusion(MINE, THEIRS, review=review), maps(MINE)
    rows = []
    for prediction in fusion(inputs):
        total = prediction.square().sum()
        gradients = torch.autograd.grad(total, inputs, retain_graph=True, allow_unused=True)
        rows.append([g is not None and bool(g.any()) for g in gradients])
    return rows


def test_a_stage_of_the_teacher_teaches_the_same_and_all_later_stages_of_the_student() -> None:
    assert reached(review=True) == [[True, True, True], [False, True, True], [False, False, True]]


def test_without_review_it_teaches_the_same_stage_alone() -> None:
    assert reached(review=False) == torch.eye(3).bool().tolist()


def test_the_fusion_adds_two_maps_with_their_attention() -> None:
    fusion = AttentionFusion(4, 6, 5, 2, has_later=True).eval()
    x, later = maps([(4, 8, 8), (6, 8, 8)])
    own = fusion.reduce(x)
    weights = torch.sigmoid(fusion.attention(torch.cat([own, later], 1)))
    fused, predicted = fusion(x, later, (8, 8))
    torch.testing.assert_close(fused, weights[:, :1] * own + weights[:, 1:] * later)
    torch.testing.assert_close(predicted, fusion.predict(fused))


def test_cells_are_repeated_to_a_larger_size_before_the_prediction() -> None:
    fusion = ReviewFusion([(1, 2), (1, 1)], [(1, 4), (1, 1)]).eval()
    for one in fusion.fusions:
        nn.init.ones_(one.reduce[0].weight)
        with torch.no_grad():
            one.predict[0].weight.copy_(torch.tensor([[[0.0, 1.0, 1.0]]]))  # a cell and the next
    for parameter in fusion.fusions[0].attention.parameters():
        nn.init.zeros_(parameter)  # both weights are 1/2
    early, last = fusion([torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[4.0]]])])
    # the last fusion is 4; the early ones are (1 + 4) / 2 and (2 + 4) / 2, each of two cells
    torch.testing.assert_close(early, torch.tensor([[[5.0, 5.5, 6.0, 3.0]]]), rtol=1e-4, atol=0)
    torch.testing.assert_close(last, torch.tensor([[[4.0]]]), rtol=1e-4, atol=0)


def test_the_convolutions_start_uniform_within_the_root_of_three_over_their_inputs() -> None:
    fusion = AttentionFusion(300, 40, 50, 2, has_later=False)
    for layer, inputs in ((fusion.reduce[0], 300), (fusion.predict[0], 40 * 9)):
        bound = (3 / inputs) ** 0.5
        assert 0.99 * bound < layer.weight.abs().max().item() <= bound


def test_one_sample_of_one_position_is_finite_in_training() -> None:
    fusion = ReviewFusion([(4, 1, 1)], [(5, 1, 1)])
    assert fusion(maps([(4, 1, 1)], size=1))[0].isfinite().all()


@pytest.mark.parametrize(("channels", "width"), [(512, 512), (513, 512)])
def test_the_width_is_not_above_512_by_itself(channels: int, width: int) -> None:
    fusion = ReviewFusion([(channels, 1)], [(1, 1)])
    assert fusion.fusions[0].reduce[0].out_channels == width


def test_the_width_is_that_of_the_last_map_or_as_given() -> None:
    for given, width in ((None, 8), (3, 3)):
        fusion = ReviewFusion(MINE, THEIRS, given)
        assert {one.reduce[0].out_channels for one in fusion.fusions} == {width}

import math

import pytest
import torch

from kd_lightning.losses.feature_distance import feature_mse
from kd_lightning.losses.guidance import (
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

HALVES = [torch.bfloat16, torch.float16]
SIMILARITIES = [dot_similarity, cosine_similarity]
OPTIONS = {
    "bandwidth": 2.0,
    "percentile": 60.0,
    "top_k": None,
    "renormalize": True,
    "similarity": dot_similarity,
}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def guide(student, samples, **options):
    weights, _ = attention_guidance(student, samples, **{**OPTIONS, **options})
    return weights, guided_target(weights, samples)


def test_value_by_hand():
    student = torch.tensor([[1.0, 2.0]])
    samples = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[-1.0, 0.0]]])  # dot: 1, 2, -1
    e = [math.exp(s / 2) for s in (1, 2, -1)]
    weights = attention_weights(student, samples, bandwidth=2.0, similarity=dot_similarity)
    torch.testing.assert_close(weights, torch.tensor([e]) / sum(e))
    weights, target = guide(student, samples, percentile=50.0)
    a = e[0] / (e[0] + e[1])
    torch.testing.assert_close(weights, torch.tensor([[a, 1 - a, 0.0]]))
    torch.testing.assert_close(target, torch.tensor([[a, 1 - a]]))
    expected = ((1 - a) ** 2 + (2 - (1 - a)) ** 2) / 2
    torch.testing.assert_close(feature_mse(student, target), torch.tensor([expected]))


def test_permuted_weights_are_those_of_the_input_before():
    student, samples = normal(5, 4), normal(7, 5, 4, seed=1)
    own = attention_guidance(student, samples, **OPTIONS)
    permuted = attention_guidance(student, samples, **OPTIONS, permuted=True)
    for before, after in zip(own, permuted, strict=True):
        assert torch.equal(after[1:], before[:-1])
        assert torch.equal(after[0], before[-1])
    assert not torch.equal(own.weights, permuted.weights)


@pytest.mark.parametrize("filtered", [{}, {"percentile": None, "top_k": 2}])
def test_a_target_of_matched_norm_has_the_norm_of_the_mean_and_its_own_direction(filtered):
    student, samples = normal(5, 4).abs(), normal(7, 5, 4, seed=1).abs()
    kept, own = guide(student, samples, **filtered)
    weights, matched = guide(student, samples, **filtered, match_norm=True)
    norms = [x.norm(dim=1, keepdim=True) for x in (own, matched)]
    torch.testing.assert_close(norms[1], samples.mean(dim=0).norm(dim=1, keepdim=True))
    torch.testing.assert_close(matched / norms[1], own / norms[0])
    assert (norms[0] > norms[1]).all()  # why there is this control
    assert torch.equal(num_kept_samples(weights), num_kept_samples(kept))


def test_a_target_of_zeros_stays_zero_with_matched_norm():
    weights, target = guide(normal(2, 3), torch.zeros(4, 2, 3), match_norm=True)
    assert weights.isfinite().all()
    assert torch.equal(target, torch.zeros(2, 3))


def test_similarities_by_hand():
    student = torch.tensor([[3.0, 4.0]])
    samples = torch.tensor([[[6.0, 8.0]], [[0.0, -1.0]], [[4.0, -3.0]]])
    assert torch.equal(dot_similarity(student, samples), torch.tensor([[50.0, -4.0, 0.0]]))
    found = cosine_similarity(student, samples)
    torch.testing.assert_close(found, torch.tensor([[1.0, -0.8, 0.0]]))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_similarities_do_not_mix_samples_or_inputs(similarity):
    student, samples = normal(4, 6), normal(3, 4, 6, seed=1)
    found = similarity(student, samples)
    assert found.shape == (4, 3)
    for b in range(4):
        for k in range(3):
            alone = similarity(student[b : b + 1], samples[k : k + 1, b : b + 1])
            torch.testing.assert_close(found[b, k], alone[0, 0])


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize(("num_samples", "num_features"), [(3, 5), (30, 127), (50, 8)])
def test_equal_samples_are_all_kept_and_give_the_plain_mse(
    similarity, renormalize, num_samples, num_features
):
    student, feature = normal(6, num_features), normal(6, num_features, seed=1)
    samples = feature.expand(num_samples, -1, -1)
    options = {"similarity": similarity, "renormalize": renormalize, "percentile": 90.0}
    weights, target = guide(student, samples, **options)
    assert torch.equal(num_kept_samples(weights), torch.full((6,), float(num_samples)))
    torch.testing.assert_close(weights, torch.full((6, num_samples), 1 / num_samples))
    torch.testing.assert_close(target, feature)
    torch.testing.assert_close(feature_mse(student, target), feature_mse(student, feature))


def test_zero_when_student_equals_equal_samples():
    student = normal(6, 5)
    _, target = guide(student, student.expand(8, -1, -1))
    torch.testing.assert_close(feature_mse(student, target), torch.zeros(6), atol=1e-12, rtol=0)


@pytest.mark.parametrize("percentile", [0.0, 90.0, 100.0])
def test_one_sample_has_weight_one(percentile):
    student, samples = normal(6, 5), normal(1, 6, 5, seed=1)
    weights, target = guide(student, samples, percentile=percentile)
    assert torch.equal(weights, torch.ones(6, 1))
    assert torch.equal(target, samples[0])


def test_a_large_bandwidth_without_filter_gives_the_mean_of_the_samples():
    student, samples = normal(6, 5), normal(8, 6, 5, seed=1)
    weights, target = guide(student, samples, bandwidth=1e8, percentile=0.0)
    torch.testing.assert_close(weights, torch.full((6, 8), 1 / 8))
    torch.testing.assert_close(target, samples.mean(0))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_small_bandwidth_gives_the_most_similar_sample(similarity):
    student, samples = normal(6, 5), normal(8, 6, 5, seed=1)
    options = {"bandwidth": 1e-5, "percentile": 0.0, "similarity": similarity}
    _, target = guide(student, samples, **options)
    best = similarity(student, samples).argmax(1)
    torch.testing.assert_close(target, samples[best, torch.arange(6)])


def test_the_largest_dot_product_is_not_always_the_nearest_sample():
    student = torch.tensor([[1.0, 0.0]])
    samples = torch.tensor([[[1.0, 0.0]], [[9.0, 9.0]]])
    nearest, largest = samples[0], samples[1]
    for similarity, expected in ((dot_similarity, largest), (cosine_similarity, nearest)):
        _, target = guide(student, samples, bandwidth=1e-3, similarity=similarity)
        torch.testing.assert_close(target, expected)


@pytest.mark.parametrize("percentile", [0.0, 50.0, 90.0, 100.0])
@pytest.mark.parametrize("num_samples", [1, 2, 10, 30])
def test_renormalised_weights_sum_to_one(num_samples, percentile):
    weights, _ = guide(normal(6, 5), normal(num_samples, 6, 5, seed=1), percentile=percentile)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(6))


def test_without_renormalising_the_target_shrinks():
    student, samples = normal(6, 5), normal(10, 6, 5, seed=1)
    full, long = guide(student, samples)
    kept, short = guide(student, samples, renormalize=False)
    share = kept.sum(1, keepdim=True)
    assert (share < 0.999).all()
    torch.testing.assert_close(kept, full * share)
    torch.testing.assert_close(short, long * share)
    assert (short.norm(dim=1) < long.norm(dim=1)).all()


@pytest.mark.parametrize("renormalize", [True, False])
def test_the_order_of_the_samples_does_not_matter(renormalize):
    student, samples = normal(6, 5), normal(10, 6, 5, seed=1)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(2))
    weights, target = guide(student, samples, renormalize=renormalize)
    permuted, same_target = guide(student, samples[order], renormalize=renormalize)
    torch.testing.assert_close(permuted, weights[:, order])
    torch.testing.assert_close(same_target, target)


@pytest.mark.parametrize(
    ("num_samples", "percentile", "count"),
    [
        *((5, 90, 1), (10, 90, 1), (20, 90, 2), (30, 90, 3), (50, 90, 5)),
        *((8, 70, 3), (11, 90, 2), (10, 0, 10), (10, 100, 1), (1, 90, 1)),
    ],
)
def test_number_of_samples_kept(num_samples, percentile, count):
    weights, _ = guide(normal(6, 5), normal(num_samples, 6, 5, seed=1), percentile=percentile)
    assert torch.equal(num_kept_samples(weights), torch.full((6,), float(count)))


@pytest.mark.parametrize("percentile", [10.0, 33.3, 50.0, 77.7, 90.0])
@pytest.mark.parametrize("num_samples", [2, 5, 8, 30])
def test_filter_is_the_linear_quantile_of_each_row(num_samples, percentile):
    weights = normal(20, num_samples).double().softmax(1)
    threshold = weights.quantile(percentile / 100, dim=1, keepdim=True, interpolation="linear")
    expected = torch.where(weights >= threshold, weights, 0)
    assert torch.equal(
        filter_by_percentile(weights, percentile=percentile, renormalize=False), expected
    )


def test_equal_weights_are_kept_or_dropped_together():
    weights = torch.tensor([[0.4, 0.1, 0.4, 0.1], [0.1, 0.3, 0.3, 0.3]])
    kept = filter_by_percentile(weights, percentile=80.0, renormalize=False)
    assert torch.equal(kept, torch.tensor([[0.4, 0, 0.4, 0], [0, 0.3, 0.3, 0.3]]))


def test_automatic_bandwidth_is_the_root_of_the_number_of_features():
    student, samples = normal(6, 9), normal(10, 6, 9, seed=1)
    automatic, stated, other = (guide(student, samples, bandwidth=h)[0] for h in ("auto", 3.0, 5.0))
    assert torch.equal(automatic, stated)
    assert not torch.allclose(automatic, other)


def test_every_argument_changes_the_result():
    student, samples = normal(6, 5), normal(10, 6, 5, seed=1)
    weights, target = guide(student, samples)
    assert weights.shape == (6, 10)
    assert target.shape == (6, 5)
    for changed in (
        guide(normal(6, 5, seed=2), samples),
        guide(student, normal(10, 6, 5, seed=2)),
        guide(student, samples, bandwidth=4.0),
        guide(student, samples, percentile=80.0),
        guide(student, samples, percentile=None, top_k=2),
        guide(student, samples, renormalize=False),
        guide(student, samples, similarity=cosine_similarity),
    ):
        assert not torch.allclose(changed[0], weights)
        assert not torch.allclose(changed[1], target)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_gradient_reaches_the_student_and_only_the_student(similarity):
    student = normal(6, 5).requires_grad_()
    samples = normal(10, 6, 5, seed=1).requires_grad_()
    _, target = guide(student, samples, similarity=similarity)
    target.square().sum().backward()
    assert (student.grad.abs().sum(1) > 0).all()
    assert samples.grad is None


def test_detaching_the_student_removes_the_gradient_of_its_choice():
    student, samples = normal(6, 5).requires_grad_(), normal(10, 6, 5, seed=1)
    _, fixed = guide(student.detach(), samples)
    _, chosen = guide(student, samples)
    assert not fixed.requires_grad
    gradients = [
        torch.autograd.grad(feature_mse(student, target).sum(), student)[0]
        for target in (fixed, chosen)
    ]
    torch.testing.assert_close(gradients[0], (2 / 5 * (student - fixed)).detach())
    assert not torch.allclose(*gradients, rtol=1e-2)


def test_gradient_through_the_choice_is_the_numerical_gradient_of_the_loss():
    student, samples = normal(4, 3).requires_grad_(), normal(6, 4, 3, seed=1)

    def loss(features):
        return feature_mse(features, guide(features, samples)[1]).double().sum()

    (gradient,) = torch.autograd.grad(loss(student), student)
    step = 1e-2
    for i in range(3):
        move = torch.zeros(4, 3)
        move[0, i] = step
        slope = (loss(student.detach() + move) - loss(student.detach() - move)) / (2 * step)
        assert slope.item() == pytest.approx(gradient[0, i].item(), rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_finite_at_extreme_features(similarity, dtype):
    student = (1e4 * normal(6, 64).sign()).to(dtype)
    samples = (1e4 * normal(10, 6, 64, seed=1).sign()).to(dtype)
    student[0] = samples[:, :2] = 0  # all features after a ReLU may be zero
    student.requires_grad_()
    weights, target = guide(student, samples, similarity=similarity)
    loss = feature_mse(student, target)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    for values in (weights, target, loss, gradient, weight_entropy(weights)):
        assert values.isfinite().all()


def test_nan_features_give_nan():
    student, samples = normal(2, 5), normal(10, 2, 5, seed=1)
    student[0, 0] = math.nan
    for renormalize in (True, False):
        _, target = guide(student, samples, renormalize=renormalize)
        assert target[0].isnan().any()
        assert target[1].isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_computed_in_float32_under_autocast(similarity, dtype):
    student, samples = normal(6, 64).to(dtype), normal(10, 6, 64, seed=1).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        found = guide(student, samples, similarity=similarity)
    expected = guide(student.float(), samples.float(), similarity=similarity)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


def test_entropy_of_the_weights():
    rows = torch.tensor([[0.25] * 4, [1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.1, 0.1, 0, 0]])
    torch.testing.assert_close(weight_entropy(rows), torch.tensor([1.0, 0.0, 0.5, 0.5]))
    assert torch.equal(weight_entropy(torch.ones(3, 1)), torch.zeros(3))
    for num_samples in (7, 30):
        even = weight_entropy(torch.full((1, num_samples), 1 / num_samples, requires_grad=True))
        assert even == 1
        assert not even.requires_grad


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan])
def test_bandwidth_must_be_positive(bandwidth):
    with pytest.raises(ValueError, match="bandwidth must be > 0 or auto, got"):
        guide(normal(6, 5), normal(10, 6, 5), bandwidth=bandwidth)


@pytest.mark.parametrize("percentile", [-1.0, 100.1, math.nan])
def test_percentile_must_be_in_its_range(percentile):
    with pytest.raises(ValueError, match=r"percentile must be in \[0, 100\], got"):
        guide(normal(6, 5), normal(10, 6, 5), percentile=percentile)


@pytest.mark.parametrize(("num_samples", "top_k", "count"), [(10, 3, 3), (10, 1, 1), (2, 5, 2)])
def test_the_top_k_weights_are_kept(num_samples, top_k, count):
    student, samples = normal(6, 5), normal(num_samples, 6, 5, seed=1)
    weights, _ = guide(student, samples, percentile=None, top_k=top_k)
    attention, _ = guide(student, samples, percentile=0.0)
    assert torch.equal(num_kept_samples(weights), torch.full((6,), float(count)))
    assert torch.equal(
        (weights > 0).nonzero(),
        (attention >= attention.sort(1).values[:, -count:][:, :1]).nonzero(),
    )
    torch.testing.assert_close(weights.sum(1), torch.ones(6))


def test_weights_equal_to_the_smallest_kept_one_are_kept():
    weights = torch.tensor([[0.4, 0.2, 0.2, 0.2]])
    assert torch.equal(filter_by_top_k(weights, top_k=2, renormalize=False), weights)
    assert torch.equal(
        filter_by_top_k(weights, top_k=1, renormalize=False), torch.tensor([[0.4, 0.0, 0.0, 0.0]])
    )


def test_mean_guidance_is_the_mean_of_the_passes():
    student, samples = normal(6, 5), normal(8, 6, 5, seed=1)
    weights, attention = mean_guidance(student, samples)
    assert torch.equal(weights, attention)
    torch.testing.assert_close(guided_target(weights, samples), samples.mean(0))


def test_nearest_guidance_is_the_pass_at_the_smallest_distance():
    student, samples = normal(6, 5), normal(8, 6, 5, seed=1)
    weights, _ = nearest_guidance(student, samples)
    nearest = torch.cdist(student.unsqueeze(1), samples.transpose(0, 1)).squeeze(1).argmin(1)
    assert torch.equal(guided_target(weights, samples), samples[nearest, torch.arange(6)])
    equal = samples[:1].expand(4, -1, -1)
    assert torch.equal(nearest_guidance(student, equal)[0][:, 0], torch.ones(6))


def test_similarity_to_target_by_hand():
    student = torch.tensor([[3.0, 4.0]])
    samples = torch.tensor([[[6.0, 8.0]], [[0.0, -1.0]]])  # cosines 1 and -0.8
    for weights, expected in (([[0.5, 0.5]], 0.1), ([[0.25, 0.0]], 1.0), ([[0.0, 2.0]], -0.8)):
        found = similarity_to_target(student, samples, torch.tensor(weights))
        assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize(("num_samples", "percentile", "top_k"), [(30, 90.0, 3), (8, 70.0, 3)])
def test_for_a_fixed_number_of_passes_a_percentile_is_a_top_k(num_samples, percentile, top_k):
    torch.manual_seed(0)
    student, samples = torch.randn(16, 12), torch.randn(num_samples, 16, 12)
    by_percentile, _ = guide(student, samples, percentile=percentile)
    by_count, _ = guide(student, samples, percentile=None, top_k=top_k)
    assert torch.equal(by_percentile, by_count)


@pytest.mark.parametrize(("percentile", "top_k"), [(None, None), (90.0, 3)])
def test_exactly_one_of_percentile_and_top_k(percentile, top_k):
    with pytest.raises(ValueError, match="exactly one of percentile and top_k must be null, got"):
        guide(normal(6, 5), normal(10, 6, 5), percentile=percentile, top_k=top_k)


def test_top_k_must_be_at_least_one():
    with pytest.raises(ValueError, match="top_k must be >= 1, got 0"):
        guide(normal(6, 5), normal(10, 6, 5), percentile=None, top_k=0)

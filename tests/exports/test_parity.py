"""A file that computes something else is refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from nets_to_export import graph_of, samples_of

from kd_lightning.base.errors import UserError
from kd_lightning.exports.parity import BATCH, SINGLES, accuracy, check_parity, compare, run_all


def test_the_first_samples_are_run_one_by_one_and_the_rest_in_batches() -> None:
    sizes = []
    x = torch.arange(SINGLES + BATCH + 3.0).unsqueeze(1)
    result = run_all(lambda batch: (sizes.append(len(batch)), batch)[1], x)
    assert sizes == [1] * SINGLES + [BATCH, 3]
    assert torch.equal(result, x)


def test_difference_agreement_and_accuracy_by_hand() -> None:
    expected = torch.tensor([[0.9, 0.1], [0.4, 0.6]])
    outputs = torch.tensor([[0.8, 0.2], [0.7, 0.3]])
    parity = compare(outputs, expected, torch.tensor([0, 1]))
    assert parity.difference == pytest.approx(0.3)
    assert (parity.agreement, parity.accuracy) == (0.5, 0.5)
    assert parity.allowed == 1e-4
    assert compare(50 * outputs, 50 * expected, None).allowed == pytest.approx(45e-4)
    assert compare(outputs, expected, None).accuracy is None


@pytest.mark.parametrize("shift", [1e-3, float("nan")])
def test_a_file_that_differs_is_refused_unless_it_is_quantized(shift: float) -> None:
    graph, samples = graph_of("series"), samples_of("series")

    def wrong(x: torch.Tensor) -> torch.Tensor:
        return graph.module(x) + shift

    assert check_parity("onnx", graph.module, graph, samples, exact=True).difference < 1e-6
    with pytest.raises(UserError, match=r"--format onnx differs from PyTorch by .*nothing is writ"):
        check_parity("onnx", wrong, graph, samples, exact=True)
    check_parity("int8", wrong, graph, samples, exact=False)


def test_a_file_that_cannot_take_every_batch_size_is_refused() -> None:
    graph, samples = graph_of("series"), samples_of("series")

    def fixed(x: torch.Tensor) -> torch.Tensor:
        return graph.module(x.view(1, 2, 30))

    with pytest.raises(UserError, match="--format onnx cannot be run"):
        check_parity("onnx", fixed, graph, samples, exact=True)


def test_an_error_that_nearly_certain_probabilities_hide_is_refused() -> None:
    samples = samples_of("series")

    def fixed(p: float) -> Callable:
        return lambda x: torch.tensor([[1 - p, p]]).expand(len(x), 2)

    graph = replace(graph_of("series"), expected=fixed(3e-5))
    check_parity("onnx", fixed(3.01e-5), graph, samples, exact=True)
    with pytest.raises(UserError, match=r"from PyTorch by 0.51 in the logarithm, more than the 0"):
        check_parity("onnx", fixed(5e-5), graph, samples, exact=True)


def test_few_samples_are_run_in_a_batch_too() -> None:
    graph, samples, sizes = graph_of("series"), samples_of("series", 2), []

    def watched(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return graph.module(x)

    found = check_parity("onnx", watched, graph, samples, exact=True)
    assert sizes == [1, 1, 1, 1, 2]
    assert found.accuracy == accuracy(graph.module(samples.x), samples.y)

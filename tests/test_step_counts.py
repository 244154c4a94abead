"""benchmarks.step_counts: rows, FLOPs and saved bytes of steps that can be counted by hand."""

import pytest
import torch
from torch import nn

from benchmarks import step_counts


def test_rows_are_counted_forward_and_backward_and_only_inside_with() -> None:
    net = nn.Linear(3, 2)
    with step_counts.CountedRows([net]) as rows:
        net(torch.ones(5, 3)).sum().backward()
        with torch.no_grad():
            net(torch.ones(4, 3))
    net(torch.ones(7, 3)).sum().backward()
    assert (rows.forward, rows.backward) == (9, 5)


def test_rows_of_a_pass_whose_output_is_not_used_have_no_backward() -> None:
    net = nn.Linear(3, 2)
    with step_counts.CountedRows([net]) as rows:
        net(torch.ones(5, 3))
        net(torch.ones(4, 3)).sum().backward()
    assert (rows.forward, rows.backward) == (9, 4)


def test_flops_of_a_linear_layer_are_those_of_its_products() -> None:
    net, x = nn.Linear(3, 2), torch.ones(5, 3)
    forward = 2 * 5 * 3 * 2
    assert step_counts.flops_of(lambda: net(x)) == forward
    assert step_counts.flops_of(lambda: net(x).sum().backward()) == 2 * forward  # of the weights


def test_saved_bytes_count_each_storage_once_and_no_weights() -> None:
    weight, x = (torch.ones(1000, requires_grad=True) for _ in range(2))

    def step() -> None:
        (weight * x).exp().sum().backward()  # saves both factors, and the result of exp

    assert step_counts.saved_bytes(step) == 12_000
    assert step_counts.saved_bytes(step, [weight]) == 8000
    assert step_counts.saved_bytes(step, [weight, x]) == 4000

    def step_of_views() -> None:
        (weight[:10] * x[:10]).sum().backward()
        (weight[10:] * x[10:]).sum().backward()

    assert step_counts.saved_bytes(step_of_views, [weight]) == 4000


def test_saved_bytes_that_become_free_during_a_step_are_counted_too() -> None:
    weight = torch.ones(1000, requires_grad=True)

    def step() -> None:
        for _ in range(3):
            torch.autograd.grad(weight.exp().sum(), weight)

    assert step_counts.saved_bytes(step, [weight]) == 12_000


@pytest.mark.parametrize(("frozen", "number"), [(False, 8 + 3), (True, 3)])
def test_only_weights_that_learn_are_counted(frozen: bool, number: int) -> None:
    modules = [nn.Linear(3, 2).requires_grad_(not frozen), nn.Linear(2, 1)]
    assert step_counts.learning_parameters(modules) == number

"""benchmarks.kernels: operations that can be counted by hand, and a step that is compiled."""

import pytest
import torch
from torch import nn

from benchmarks import kernels

SMALL = ("data=synthetic", "data.batch_size=16", "model@method.students.student=mlp")


def test_operations_are_counted_forward_and_backward_without_views_and_new_memory() -> None:
    x, net = torch.ones(5, 3), nn.Linear(3, 2)
    with kernels.Operations() as forward:
        y = net(x).relu()  # addmm of a view of the weights, and relu
        y.view(10), y.detach(), torch.empty(3)
    assert forward.count == 2
    with kernels.Operations() as backward:
        y.backward(torch.ones(5, 2))
    # the ones; back through relu; the products for the weights; the sum for the bias
    assert backward.count == 4


def test_a_line_has_how_many_times_fewer_calls_there_are() -> None:
    assert kernels.Launches(120, 20, 21).line("kd") == "| kd | 120 | 20 | 21 | 2.9 |"


def test_an_unknown_method_is_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        kernels.main(["kdd"])
    assert "no method 'kdd': expected some of supervised, kd" in capsys.readouterr().err


def test_the_step_is_that_of_a_cpu_where_there_is_a_gpu_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def launches_of(words: list[str]) -> kernels.Launches:
        asked.extend(words)
        return kernels.Launches(1, 1, 1)

    monkeypatch.setattr(kernels, "launches_of", launches_of)
    kernels.main(["kd"])
    assert "hardware=cpu" in asked  # auto would take bf16 on a GPU


def test_a_part_of_the_table_does_not_replace_all_of_it(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        kernels.main(["kd", "--write"])
    assert "--write needs all methods: name none" in capsys.readouterr().err


@pytest.mark.slow
def test_a_compiled_step_makes_fewer_calls(monkeypatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(kernels, "SMALL", SMALL)
    monkeypatch.setattr(kernels, "NETS", {"supervised": ()})
    kernels.main([])
    *_, line = capsys.readouterr().out.splitlines()
    plain, fused, called = (int(cell) for cell in line.split("|")[2:5])
    # the products of three layers: forward, for their weights, and for the inputs of two of them
    assert called == 3 + 3 + 2
    assert fused > 0
    assert fused + called < plain

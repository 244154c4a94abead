import pytest
import torch
from helpers import net
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from kd_lightning.models.averages import are_alike, mean_state, move_averages, refresh_batch_norm
from kd_lightning.models.classifier import Classifier


def with_norm(*, dropout: float = 0.0) -> Classifier:
    layers = [nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(dropout), nn.Linear(5, 4)]
    return Classifier(
        trunk=nn.Sequential(*layers, nn.BatchNorm1d(4)), head=nn.Linear(4, 3), dropout=dropout
    )


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    y = torch.zeros(8, dtype=torch.int64)
    return [(torch.randn(8, 6, generator=generator) * 3 + 1, y) for _ in range(count)]


def running(module: nn.Module) -> dict[str, Tensor]:
    return {name: b.clone() for name, b in module.named_buffers() if "running" in name}


def test_a_mean_by_hand() -> None:
    states = [{"w": torch.tensor([1.0, 4.0]), "n": torch.tensor(7)},
              {"w": torch.tensor([2.0, 0.0]), "n": torch.tensor(9)}]  # fmt: skip
    mean = mean_state(states)
    assert mean["w"].tolist() == [1.5, 2.0]
    assert mean["n"].item() == 7
    assert mean["w"].dtype == torch.float32
    assert states[0]["w"].tolist() == [1.0, 4.0]


def test_the_first_value_of_an_average_is_copied_also_where_it_had_no_number() -> None:
    averages = [torch.tensor([torch.inf, torch.nan]), torch.tensor(7)]
    move_averages(averages, [torch.tensor([0.1, 3.0]), torch.tensor(9)], 1.0)
    assert averages[0].tolist() == pytest.approx([0.1, 3.0])
    assert averages[1].item() == 9


def test_an_average_moves_by_its_share_and_counts_are_copied() -> None:
    averages = [torch.tensor([1.0, 4.0]), torch.tensor(7), torch.tensor(0.1)]
    current = [torch.tensor([2.0, 0.0], requires_grad=True), torch.tensor(9), torch.tensor(0.1)]
    move_averages(averages, current, 0.25)
    assert averages[0].tolist() == [1.25, 3.0]
    assert averages[1].item() == 9
    assert torch.equal(averages[2], current[2])  # equal values stay equal
    assert current[0].tolist() == [2.0, 0.0]
    with pytest.raises(ValueError, match="shorter"):
        move_averages(averages, current[:2], 0.25)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_a_mean_of_equal_weights_is_these_weights_bit_for_bit(count: int) -> None:
    state = with_norm().state_dict()
    mean = mean_state([state] * count)
    assert mean.keys() == state.keys()
    assert all(torch.equal(mean[name], state[name]) for name in state)


def test_names_and_shapes_are_compared_and_not_values() -> None:
    assert are_alike([net().state_dict(), net(dropout=0.5).state_dict()])
    assert not are_alike([net().state_dict(), net(features=9).state_dict()])
    assert not are_alike([net().state_dict(), net(hidden=4).state_dict()])


def test_the_statistics_are_equal_to_those_of_torch() -> None:
    ours, theirs = with_norm(), with_norm()
    theirs.load_state_dict(ours.state_dict())

    class LogitsOnly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = theirs

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).logits

    update_bn(batches(), LogitsOnly())
    refresh_batch_norm([ours], batches())
    for name, value in running(theirs).items():
        assert torch.equal(running(ours)[name], value)


def test_earlier_statistics_are_forgotten_and_batches_have_equal_weight() -> None:
    student = with_norm()
    refresh_batch_norm([student], [(torch.full((8, 6), 100.0) + torch.randn(8, 6), None)])
    first = student.trunk[0]
    refresh_batch_norm([student], batches())
    means = torch.stack([first(x).mean(0) for x, _ in batches()]).mean(0)
    torch.testing.assert_close(student.trunk[1].running_mean, means)


def test_dropout_is_off_and_no_random_numbers_are_drawn() -> None:
    with_dropout, without = with_norm(dropout=0.5), with_norm()
    without.load_state_dict(with_dropout.state_dict())
    state = torch.get_rng_state()
    refresh_batch_norm([with_dropout, without], batches())
    assert torch.equal(state, torch.get_rng_state())
    for name, value in running(without).items():
        assert torch.equal(running(with_dropout)[name], value)


@pytest.mark.parametrize("training", [True, False])
def test_modes_momenta_and_weights_do_not_change(training: bool) -> None:
    student = with_norm().train(training)
    student.trunk[1].momentum = 0.3
    student.trunk[4].eval()
    weights = {name: p.clone() for name, p in student.named_parameters()}
    modes = [module.training for module in student.modules()]
    refresh_batch_norm([student], batches())
    assert [module.training for module in student.modules()] == modes
    assert (student.trunk[1].momentum, student.trunk[4].momentum) == (0.3, 0.1)
    assert all(torch.equal(weights[name], p) for name, p in student.named_parameters())
    assert all(p.grad is None for p in student.parameters())


def test_without_batch_norm_no_batch_is_read() -> None:
    class Unread:
        def __iter__(self) -> None:
            raise AssertionError

    untracked = with_norm()
    for index in (1, 4):
        untracked.trunk[index] = nn.BatchNorm1d(5 if index == 1 else 4, track_running_stats=False)
    refresh_batch_norm([net(), untracked], Unread())


def test_several_nets_share_a_pass() -> None:
    nets = [with_norm(), net(6, 4, 3), with_norm()]
    read = []

    def recorded() -> object:
        for batch in batches():
            read.append(batch)
            yield batch

    refresh_batch_norm(nets, recorded())
    assert len(read) == 3
    for student in (nets[0], nets[2]):
        alone = with_norm()
        alone.load_state_dict(student.state_dict())
        refresh_batch_norm([alone], batches())
        assert all(torch.equal(running(student)[n], v) for n, v in running(alone).items())

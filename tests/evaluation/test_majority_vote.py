import pytest
import torch

from kd_lightning.evaluation.majority_vote import majority_vote


def logits_of(*probabilities: list[float]) -> torch.Tensor:
    return torch.tensor([probabilities]).log().transpose(0, 1)  # (nets, 1 sample, C)


@pytest.mark.parametrize(
    ("nets", "winner"),
    [
        # two of three, against the mean probability, which is highest for class 1
        ([[0.51, 0.49, 0.0], [0.51, 0.49, 0.0], [0.0, 1.0, 0.0]], 0),
        # one vote each: class 2 has the highest mean
        ([[0.4, 0.3, 0.3], [0.3, 0.4, 0.3], [0.1, 0.1, 0.8]], 2),
        # class 2 has the highest mean, and no vote
        ([[0.5, 0.05, 0.45], [0.5, 0.05, 0.45], [0.0, 0.55, 0.45], [0.0, 0.55, 0.45]], 1),
        # all agree
        ([[0.2, 0.8], [0.4, 0.6], [0.3, 0.7]], 1),
    ],
)
def test_the_majority_wins_and_the_mean_probability_breaks_ties(
    nets: list[list[float]], winner: int
) -> None:
    assert majority_vote(logits_of(*nets)).tolist() == [winner]


def test_each_sample_has_its_own_vote() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 200, 4, generator=generator)
    together = majority_vote(list(logits))
    assert torch.equal(together, torch.cat([majority_vote(list(z)) for z in logits.split(1, 1)]))
    votes = logits.argmax(-1)
    for sample, cls in enumerate(together.tolist()):
        counts = votes[:, sample].bincount(minlength=4)
        assert counts[cls] == counts.max()


def test_the_order_of_the_nets_does_not_matter() -> None:
    logits = torch.randn(4, 300, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(majority_vote(list(logits)), majority_vote(list(logits.flip(0))))


def test_the_vote_of_one_net_is_its_class() -> None:
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(2))
    assert torch.equal(majority_vote([logits]), logits.argmax(-1))


def test_a_vote_of_extreme_logits() -> None:
    logits = torch.tensor([[[1e4, -1e4]], [[-1e4, 1e4]], [[1e4, 0.0]]])
    assert majority_vote(list(logits)).tolist() == [0]

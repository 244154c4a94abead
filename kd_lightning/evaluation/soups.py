"""Model soups: one net with the mean of the weights of several nets (arXiv 2203.05482).

Using a soup costs as much as using one net; an ensemble costs as much as all of its nets. The nets
must have begun training from the same weights (``method.start_from_teacher=true``, or one file of
weights for all). The mean of nets trained from different random weights has an accuracy near
chance, and its row in the table shows that.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

from torch import nn

from kd_lightning.models.averages import mean_state

AverageByName = Callable[[Sequence[str]], nn.Module]  # names of nets -> a net of their mean weights
Score = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Soup:
    """A soup.

    Attributes:
        net: has the mean weights.
        members: names of the averaged nets.
        accuracy: of the soup on val; None without a val part.
    """

    net: nn.Module
    members: tuple[str, ...]
    accuracy: float | None


def average_nets(nets: Sequence[nn.Module], refresh: Callable[[nn.Module], None]) -> nn.Module:
    """A new net with the mean of the weights of ``nets``, which have the same architecture.

    Args:
        refresh: recomputes the batch-norm statistics of the new net. Not called for a single net,
            whose statistics are already right.
    """
    soup = deepcopy(nets[0])
    if len(nets) > 1:
        soup.load_state_dict(mean_state([net.state_dict() for net in nets]))
        refresh(soup)
    return soup


def greedy_soup(ranked: Sequence[str], average: AverageByName, score: Score) -> Soup:
    """Adds one net after the other, and keeps each whose addition does not lower the score.

    Args:
        ranked: names of the nets, the best one first.
        average: makes the soup of the named nets.
        score: of a net; higher is better.
    """
    net = average(ranked[:1])
    soup = Soup(net, (ranked[0],), score(net))
    for name in ranked[1:]:
        members = (*soup.members, name)
        net = average(members)
        if (value := score(net)) >= soup.accuracy:
            soup = Soup(net, members, value)
    return soup


def build_soups(
    nets: Mapping[str, nn.Module],
    accuracies: Mapping[str, float],
    *,
    refresh: Callable[[nn.Module], None],
    score: Score | None,
) -> dict[str, Soup]:
    """``uniform_soup``, of all nets, and ``greedy_soup``, if there is a score.

    Args:
        accuracies: of the nets on val. The greedy soup tries the most accurate net first; nets of
            equal accuracy keep their order.
        refresh: as in ``average_nets``.
        score: accuracy of a net on val; None without a val part.
    """

    def average(names: Sequence[str]) -> nn.Module:
        return average_nets([nets[name] for name in names], refresh)

    net = average(list(nets))
    soups = {"uniform_soup": Soup(net, tuple(nets), score(net) if score else None)}
    if score is not None:
        ranked = sorted(nets, key=lambda name: -accuracies[name])
        soups["greedy_soup"] = greedy_soup(ranked, average, score)
    return soups

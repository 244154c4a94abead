"""Model soups: one net whose weights are the mean of several nets' (arXiv 2203.05482).

A soup costs one net when it is used, where an ensemble costs all of them. It makes sense for nets
that began with common weights (``method.start_from_teacher=true``, or one file of weights for all):
the mean of nets that were trained from different random weights is near chance, and its row says
so.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

from torch import nn

from kd_lightning.models.averages import mean_state

# of the members' names
Cook = Callable[[Sequence[str]], nn.Module]
Score = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Soup:
    """A net, the names of those whose weights are in it, and its accuracy on val, if known."""

    net: nn.Module
    members: tuple[str, ...]
    accuracy: float | None


def mixed(nets: Sequence[nn.Module], refresh: Callable[[nn.Module], None]) -> nn.Module:
    """A net with the mean of the weights of ``nets``, which are alike.

    Args:
        refresh: computes the batch-norm statistics of a mean anew; not called for a single net,
            whose own are right.
    """
    soup = deepcopy(nets[0])
    if len(nets) > 1:
        soup.load_state_dict(mean_state([net.state_dict() for net in nets]))
        refresh(soup)
    return soup


def greedy(ranked: Sequence[str], cook: Cook, score: Score) -> Soup:
    """The greedy soup: each net in turn is kept in it if the score of the soup does not fall.

    Args:
        ranked: names, the best net first.
        cook: the soup of nets by their names.
        score: of a net; the higher, the better.
    """
    net = cook(ranked[:1])
    soup = Soup(net, (ranked[0],), score(net))
    for name in ranked[1:]:
        members = (*soup.members, name)
        net = cook(members)
        if (value := score(net)) >= soup.accuracy:
            soup = Soup(net, members, value)
    return soup


def soups_of(
    nets: Mapping[str, nn.Module],
    accuracies: Mapping[str, float],
    *,
    refresh: Callable[[nn.Module], None],
    score: Score | None,
) -> dict[str, Soup]:
    """``uniform_soup``, of all nets, and ``greedy_soup``, unless there is nothing to score by.

    Args:
        accuracies: of the nets on val, by which the greedy soup takes them in turn; among equals in
            their own order.
        refresh: as in ``mixed``.
        score: accuracy of a net on val; None without a val part.
    """

    def cook(names: Sequence[str]) -> nn.Module:
        return mixed([nets[name] for name in names], refresh)

    net = cook(list(nets))
    soups = {"uniform_soup": Soup(net, tuple(nets), score(net) if score else None)}
    if score is not None:
        ranked = sorted(nets, key=lambda name: -accuracies[name])
        soups["greedy_soup"] = greedy(ranked, cook, score)
    return soups

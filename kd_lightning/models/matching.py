"""Finds the weights of a net among the tensors of a file, whatever prefix their names have there.

A wrapper puts a prefix before all names: ``module.``, ``model.``, ``_orig_mod.``, ``student.net.``.
No list of prefixes is needed: the right one stands before the net's own names, if all of them are
there with the net's shapes. The head may have another name than the net gives it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from kd_lightning.models.classifier import STATISTICS, Classifier

HEADS = frozenset(
    ("fc", "classifier", "head", "heads", "linear", "last_linear", "logits", "cls", "output", "out")
)
UNUSED = ("num_batches_tracked", "total_ops", "total_params", "n_averaged")  # no weights

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Naming:
    """The names that a file may have for the parameters of a net.

    Attributes:
        body: name in the file -> name in the net, of all but the head.
        head: name of the head in the file; None: the head is not treated apart.
        is_own: whether these are the names of a ``Classifier``, and not of the net inside.
    """

    body: dict[str, str]
    head: str | None
    is_own: bool

    @property
    def needed(self) -> set[str]:
        """The names without which a file does not fit. Old files lack the counts of batches."""
        return {name for name in self.body if not name.endswith(UNUSED)}

    def name_in_file(self, name: str, prefix: str = "") -> str:
        """The name that a parameter of the net should have in a file."""
        if self.head is not None and name.startswith("head."):
            return f"{prefix}{self.head}{name.removeprefix('head')}"
        return prefix + next((theirs for theirs, own in self.body.items() if own == name), name)


@dataclass(frozen=True)
class Fit:
    """Tensors of a file with the names of a net's parameters.

    Attributes:
        where: in the file: "state_dict.model", "" for its top.
        names: name in the net -> name in the file.
        state: name in the net -> tensor.
        naming, prefix: how the file names the net's parameters.
        unexpected: names in the file that look like a part of the net and are none.
        passed_over: the other names in the file.
    """

    where: str
    names: dict[str, str]
    state: dict[str, Tensor]
    naming: Naming
    prefix: str
    unexpected: list[str]
    passed_over: list[str]


def namings_of(net: nn.Module) -> list[Naming]:
    """The net's own names and, if it holds the net of a library, those of that net."""
    own = [name for name in net.state_dict() if name not in STATISTICS]
    body = [name for name in own if not name.startswith("head.")]
    if not isinstance(net, Classifier) or not body:
        return [Naming({name: name for name in own}, None, True)]
    namings = [Naming({name: name for name in body}, "head", True)]
    if net.library_head is not None:
        theirs = {name.removeprefix("trunk."): name for name in body}
        namings.append(Naming(theirs, net.library_head, False))
    return namings


def fits_of(net: nn.Module, where: str, state: State) -> list[Fit]:
    """All parts of a state dict that fit the net, but for the number of classes of the head.

    Args:
        where: the state dict is in its file.
    """
    own = net.state_dict()
    for naming in namings_of(net):
        prefixes = [
            prefix
            for prefix, count in prefix_counts(state, naming).items()
            if count == len(naming.needed)
            and all(state[prefix + n].shape == own[naming.body[n]].shape for n in naming.needed)
        ]
        if prefixes:
            return [fit_with(net, where, state, naming, prefix) for prefix in prefixes]
    return []


def nearest_fit(net: nn.Module, states: Mapping[str, State]) -> tuple[Fit, int]:
    """Where most of the net's names are, for messages, and how many of them are there."""
    tries = [
        (count, where, naming, prefix)
        for where, state in states.items()
        for naming in namings_of(net)
        for prefix, count in prefix_counts(state, naming).items()
    ]
    if tries:
        count, where, naming, prefix = max(tries, key=lambda found: found[0])
        return fit_with(net, where, states[where], naming, prefix), count
    where = max(states, key=lambda name: len(states[name]))
    return fit_with(net, where, states[where], namings_of(net)[-1], ""), 0


def prefix_counts(state: State, naming: Naming) -> Counter[str]:
    """Prefix -> how many of the needed names the file has with this prefix."""
    needed = naming.needed
    counts: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in needed:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    return counts


def fit_with(net: nn.Module, where: str, state: State, naming: Naming, prefix: str) -> Fit:
    """The tensors with this prefix under their names in the net, and all other names."""
    names = {own: prefix + name for name, own in naming.body.items() if prefix + name in state}
    stem = None
    if naming.head is not None:
        stem = find_head(net.head, without(state, names), prefix, naming.head)
        names |= names_of_head(state, stem)
    if isinstance(net, Classifier):
        names |= find_statistics(net, without(state, names), prefix)
    rest = [name for name in without(state, names) if not name.endswith(UNUSED)]
    beside_head = None if stem is None else stem.removeprefix(prefix).rpartition(".")[0]
    unexpected = [
        name
        for name in rest
        if name.startswith(prefix) or (beside_head and name.startswith(f"{beside_head}."))
    ]
    chosen = {own: state[name] for own, name in names.items()}
    chosen |= {name: chosen[name].flatten() for name in STATISTICS if name in chosen}
    if naming.head is not None and "head.weight" in chosen:
        chosen["head.weight"] = chosen["head.weight"].flatten(1)  # a 1 x 1 convolution
    return Fit(
        where=f"{where}.{prefix}".strip("."),
        names=names,
        state=chosen,
        naming=naming,
        prefix=prefix,
        unexpected=unexpected,
        passed_over=[name for name in rest if name not in unexpected],
    )


def without(state: State, names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors whose names in the file are not among the values of ``names``."""
    taken = set(names.values())
    return {name: value for name, value in state.items() if name not in taken}


def names_of_head(state: State, stem: str | None) -> dict[str, str]:
    """Name in the net -> name in the file, of all tensors of a head."""
    if stem is None:
        return {}
    inside = [name for name in state if name.startswith(f"{stem}.")]
    return {f"head{name.removeprefix(stem)}": name for name in inside}


def find_head(head: nn.Module, rest: State, prefix: str, name: str) -> str | None:
    """The name of the head in the file: the expected one, or else that of the only linear layer
    which could be it. None if there is none or more than one.

    Args:
        head: of the net.
        rest: tensors of the file that are no part of the body.
        name: the expected one, without the prefix.
    """
    if not isinstance(head, nn.Linear):
        return prefix + name if any(n.startswith(f"{prefix}{name}.") for n in rest) else None
    if f"{prefix}{name}.weight" in rest:
        return prefix + name
    stems = [
        other.removesuffix(".weight")
        for other, value in rest.items()
        if other.endswith(".weight") and _could_be_head(head, rest, other, value)
    ]
    stems = [stem for stem in stems if stem.startswith(prefix)] or stems
    return stems[0] if len(stems) == 1 else None


def _could_be_head(head: nn.Linear, rest: State, name: str, weight: Tensor) -> bool:
    stem = name.removesuffix(".weight")
    *_, parent, last = ["", *stem.split(".")]
    return (
        (last in HEADS or (last.isdigit() and parent in HEADS))
        and weight.ndim in (2, 4)
        and weight.flatten(1).shape[1] == head.in_features
        and (f"{stem}.bias" in rest) == (head.bias is not None)
    )


def find_statistics(net: Classifier, rest: State, prefix: str) -> dict[str, str]:
    """The statistics of the input, as a module in front of the net keeps them: the only pair of
    tensors with the names mean and std.
    """
    if all(prefix + name in rest for name in STATISTICS):
        return {name: prefix + name for name in STATISTICS}
    means = [name for name in rest if name.rpartition(".")[2] == "mean"]
    stems = [n.removesuffix("mean") for n in means if f"{n.removesuffix('mean')}std" in rest]
    if len(stems) != 1 or not _fits_channels(net, rest[f"{stems[0]}mean"], rest[f"{stems[0]}std"]):
        return {}
    return {name: stems[0] + name.rpartition(".")[2] for name in STATISTICS}


def _fits_channels(net: Classifier, mean: Tensor, std: Tensor) -> bool:
    own: Any = net.prepare.state_dict().get("mean")
    return mean.shape == std.shape and (own is None or own.numel() == mean.numel())

"""Loads weights from a file into a net, and says what is wrong with a file in one sentence.

``checkpoints.py`` reads the file, and ``matching.py`` finds the net's weights in it. The state dict
of a ``Classifier`` has the names ``trunk.*``, ``head.*``, ``prepare.mean`` and ``prepare.std``; the
last two are the statistics of the input that the weights were trained with.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from os import PathLike

import torch
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.checkpoint_facts import Facts
from kd_lightning.models.checkpoints import KEY, Checkpoint, read_checkpoint
from kd_lightning.models.classifier import STATISTICS, Classifier, Prepare
from kd_lightning.models.matching import Fit, fits_of, nearest_fit
from kd_lightning.models.torchvision_files import translated

log = logging.getLogger(__name__)
AVERAGE = re.compile(r"(^|[._])(ema|swa|averaged?)($|[._])")  # in the place of averaged weights


@dataclass(frozen=True)
class Loaded:
    """What was loaded.

    Attributes:
        facts: what the file says about its net; ``mean`` and ``std`` are those that the net got.
        is_own: whether the file has the names of a ``Classifier``, and so was written by this
            package.
        notes: sentences of what a person should know about the choice of the weights.
    """

    facts: Facts
    is_own: bool
    notes: list[str]


@cache
def say_once(note: str) -> None:
    """Logs a note about a file, which is read more than once in a run."""
    log.warning(note)


def check_weights_choice(weights: str | None, *, allow_pretrained: bool) -> None:
    """Raises ``UserError`` unless ``weights`` is "none", a file, or "pretrained" where allowed.

    ``read_checkpoint`` checks whether the file can be read.
    """
    if not isinstance(weights, str | PathLike):
        raise UserError(f"weights must be none, pretrained or a file, got {weights} ({KEY}=…)")
    if weights == "pretrained" and not allow_pretrained:
        raise UserError(f"this net has no pretrained weights: expected none or a file ({KEY}=…)")


def load_weights(
    net: nn.Module,
    source: str | PathLike | Checkpoint,
    key: str = KEY,
    *,
    weights_key: str | None = None,
    key_of_weights_key: str = f"{KEY}_key",
    any_classes: bool = False,
) -> Loaded:
    """Loads a file into ``net``. All names and shapes must agree, but for a prefix of the names and
    the name of the head.

    If the file says with which statistics of the input its weights were trained, the net gets
    them; if not, the net keeps its own.

    Args:
        source: the file, or what ``read_checkpoint`` has read.
        key, key_of_weights_key: the configuration keys of the two arguments, for messages.
        weights_key: which of several sets of weights in the file: where it is, or the beginning or
            the end of that. None: the only one that fits; of a net and its moving average, the
            average, as timm does.
        any_classes: whether the head takes the number of classes of the file.

    Raises:
        UserError: see ``read_checkpoint``; or no weights in it fit the net, several do, or some of
            their values are not finite.
    """
    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(source, key)
    fit, notes = choose_fit(net, checkpoint, key, weights_key, key_of_weights_key)
    check_finite(fit, checkpoint, key)
    if any_classes and isinstance(net, Classifier):
        _resize_head(net, fit)
    state, facts = _with_statistics(net, fit.state, checkpoint.facts)
    load_state(net, state, checkpoint, key, fit=fit)
    if facts.is_raw and isinstance(net, Classifier) and isinstance(net.prepare, Prepare):
        net.prepare.set_statistics(None, None)
    if fit.passed_over:
        notes.append(
            f"{checkpoint.path.name} also has other tensors, which are not used: "
            f"{_list_some('', fit.passed_over)}"
        )
    return Loaded(facts, fit.naming.is_own, notes)


def _with_statistics(
    net: nn.Module, state: dict[str, Tensor], facts: Facts
) -> tuple[dict[str, Tensor], Facts]:
    """``state`` with the mean and std that ``facts`` give, and ``facts`` with those of ``state``,
    which count first.
    """
    if not isinstance(net, Classifier):
        return state, facts
    if "prepare.mean" in state:
        mean, std = (state[name].tolist() for name in STATISTICS)
        return state, replace(facts, mean=mean, std=std)
    if facts.mean is not None:
        facts = _for_channels_of(net, facts)
    if facts.mean is not None:
        state = {
            **state,
            "prepare.mean": torch.tensor(facts.mean),
            "prepare.std": torch.tensor(facts.std),
        }
    return state, facts


def choose_fit(
    net: nn.Module, checkpoint: Checkpoint, key: str, weights_key: str | None, its_key: str
) -> tuple[Fit, list[str]]:
    """The weights in the file that fit the net, and notes for people.

    Args:
        its_key: the configuration key of ``weights_key``.
    """
    states = checkpoint.states
    fits = [fit for where, state in states.items() for fit in fits_of(net, where, state)]
    fits = fits or _fits_by_translation(net, checkpoint, key)
    if weights_key is not None:
        fits = _chosen_fits(fits, weights_key, checkpoint, its_key)
    notes = []
    averages = [fit for fit in fits if AVERAGE.search(fit.where)]
    if len(fits) == 2 and len(averages) == 1:
        (other,) = (fit for fit in fits if fit not in averages)
        name = other.where or "its top"
        notes.append(
            f"{checkpoint.path.name} has weights ({name}) and their moving average "
            f"({averages[0].where}): the average is used"
            + (f" ({its_key}={name} for the other)" if other.where else "")
        )
        fits = averages
    if len(fits) > 1 and not all(_same(fits[0], other) for other in fits[1:]):
        raise UserError(
            f"{checkpoint.path} has {len(fits)} sets of weights that fit the net: choose one with "
            f"{its_key}={' or '.join(fit.where for fit in fits if fit.where)}"
        )
    return fits[0], notes


def _chosen_fits(
    fits: Sequence[Fit], weights_key: str, checkpoint: Checkpoint, its_key: str
) -> list[Fit]:
    """The fits at this place: equal to it, or it is their beginning or their end."""
    places = [f".{fit.where}." for fit in fits]
    wanted = f".{weights_key}."
    exact = [fit for fit, place in zip(fits, places, strict=True) if place == wanted]
    inside = [
        fit
        for fit, place in zip(fits, places, strict=True)
        if place.startswith(wanted) or place.endswith(wanted)
    ]
    if exact or inside:
        return exact or inside
    raise UserError(
        f"{checkpoint.path} has no weights for the net under {weights_key}: expected "
        f"{' or '.join(fit.where or 'null' for fit in fits)} ({its_key}=…)"
    )


def _same(first: Fit, second: Fit) -> bool:
    return first.state.keys() == second.state.keys() and all(
        torch.equal(value, second.state[name]) for name, value in first.state.items()
    )


def _fits_by_translation(net: nn.Module, checkpoint: Checkpoint, key: str) -> list[Fit]:
    """The fits of weights with torchvision's names.

    Raises:
        UserError: there are none: they have other names.
    """
    fit, hits = nearest_fit(net, checkpoint.states)
    if hits == len(fit.naming.needed):  # all names, other shapes
        load_state(net, fit.state, checkpoint, key, fit=fit)
    fits = []
    for where, state in checkpoint.states.items():
        theirs = translated(net, state, checkpoint.path, key)
        fits += [] if theirs is None else fits_of(net, where, theirs)
    if fits:
        return fits
    load_state(net, fit.state, checkpoint, key, fit=fit)
    raise AssertionError("weights that fit no net were loaded")


def check_finite(fit: Fit, checkpoint: Checkpoint, key: str) -> None:
    """Raises ``UserError`` if a tensor has a value that is infinite or no number."""
    bad = [name for name, value in fit.state.items() if not value.isfinite().all()]
    if bad:
        raise UserError(
            f"{len(bad)} of {len(fit.state)} tensors in {checkpoint.path} have values that are not "
            f"finite, the first is {fit.names[bad[0]]}: its training failed, so give another file "
            f"({key}=…)"
        )


def _resize_head(net: Classifier, fit: Fit) -> None:
    """Gives the net a head for the number of classes of the file."""
    weight, head = fit.state.get("head.weight"), net.head
    if isinstance(head, nn.Linear) and weight is not None and len(weight) != head.out_features:
        net.head = nn.Linear(head.in_features, len(weight), bias=head.bias is not None)


def _for_channels_of(net: Classifier, facts: Facts) -> Facts:
    """The facts with statistics for the net's channels: for grey images the mean over the colours;
    none if they are for another number of channels.
    """
    channels = getattr(net.prepare, "in_chans", len(facts.mean))
    if channels == 1:
        mean, std = ([sum(values) / len(values)] for values in (facts.mean, facts.std))
        return replace(facts, mean=mean, std=std)
    return facts if channels == len(facts.mean) else replace(facts, mean=None, std=None)


def load_state(
    net: nn.Module, state: dict[str, Tensor], checkpoint: Checkpoint, key: str, *, fit: Fit
) -> None:
    """Loads a state dict with the net's names.

    Args:
        checkpoint, key: of the file and of its configuration key, for messages.
        fit: what ``state`` is in the file, for messages.

    Raises:
        UserError: the file has another number of classes or of input channels, or other names or
            shapes than the net.
    """
    if isinstance(net, Classifier):
        _add_statistics_buffers(net, state)
    own, path = net.state_dict(), checkpoint.path
    state = {name: value for name, value in state.items() if name in own}
    missing = [name for name in own if name not in state and name not in STATISTICS]
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    reshaped = [name for name in state if own[name].shape != state[name].shape]
    _check_classes(own, state, reshaped, path, key)
    if statistics := [name for name in reshaped if name in STATISTICS]:
        expected, found = (of[statistics[0]].numel() for of in (own, state))
        raise UserError(
            f"expected weights for {expected} input channels, {path} has {found} ({key}=…)"
        )
    shapes = [
        f"{fit.names[n]} {list(state[n].shape)}, expected {list(own[n].shape)}" for n in reshaped
    ]
    is_foreign = fit.naming.is_own and not any(name.startswith("trunk.") for name in fit.names)
    names = [fit.naming.name_in_file(name, fit.prefix) for name in missing]
    short = [name.removeprefix("trunk.") for name in names]
    if is_foreign and not {*short} & {*fit.unexpected}:  # else "trunk." is what is missing
        names = short
    problems = (
        _list_some("missing", names),
        _list_some("unexpected", fit.unexpected),
        _list_some("of another shape", shapes),
    )
    if any(problems):
        message = "; ".join(problem for problem in problems if problem)
        of = checkpoint.facts.architecture
        says = f", which says that it is of {of}," if of else ""
        other = ", or their net: model@method.teacher=…" if key == "teacher.source" else ""
        raise UserError(
            f"the weights in {path}{says} do not fit the net: {message} ({key}=…{other})"
        )
    net.load_state_dict(own | state)


def _check_classes(
    own: dict[str, Tensor],
    state: dict[str, Tensor],
    reshaped: Sequence[str],
    path: PathLike,
    key: str,
) -> None:
    """Raises ``UserError`` if nothing but the number of classes is different."""
    if "head.weight" in reshaped and all(name.startswith("head.") for name in reshaped):
        expected, found = own["head.weight"].shape, state["head.weight"].shape
        if expected[1:] == found[1:]:
            raise UserError(
                f"expected weights for {expected[0]} classes, {path} has {found[0]} ({key}=…)"
            )


def _add_statistics_buffers(net: Classifier, state: dict[str, Tensor]) -> None:
    """Adds buffers for the statistics in ``state`` to a net that was built without statistics."""
    device = next(net.parameters()).device
    for name in STATISTICS:
        buffer = name.removeprefix("prepare.")
        if name in state and getattr(net.prepare, buffer) is None:
            net.prepare.register_buffer(buffer, torch.empty_like(state[name], device=device))


def _list_some(kind: str, names: Iterable[str], max_names: int = 3) -> str:
    """ "missing: a, b, c and 9 more"; "" if there are no names. ``kind`` may be empty."""
    names = list(names)
    if not names:
        return ""
    more = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return f"{kind}{': ' * bool(kind)}{', '.join(names[:max_names])}{more}"

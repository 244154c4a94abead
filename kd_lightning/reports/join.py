"""Joins the results of several directories: settings in which they differ become axes, and no
result is counted twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from kd_lightning.base.errors import UserError
from kd_lightning.base.override_words import key_of
from kd_lightning.reports.job_results import JobResult
from kd_lightning.reports.sources import Source


def join(sources: Sequence[Source]) -> Source:
    """One source with the results of all.

    Where sweeps differ in an override that all their jobs have, such as ``data=…``, its key becomes
    an axis. It also becomes a part of the rows' names if otherwise two different rows would have
    the same name.

    Raises:
        UserError: two results have the same row, data set and seed.
    """
    if len(sources) == 1:
        check_unique(sources[0])
        return sources[0]
    data_sets = tuple(dict.fromkeys(key for source in sources for key in source.data_sets))
    common = [_common_overrides(source) for source in sources]
    differing = [
        {key: word for key, word in own.items() if any(o.get(key) != word for o in common)}
        for own in common
    ]
    names = [{result.variant for result in source.results} for source in sources]
    ambiguous = any(
        a & b and _of_rows(differing[i], data_sets) != _of_rows(differing[j], data_sets)
        for i, a in enumerate(names)
        for j, b in enumerate(names[:i])
    )
    data_keys = {key for own in differing for key in own if key in data_sets}
    results = [
        _with_axes(result, own, data_keys, data_sets if ambiguous else None)
        for source, own in zip(sources, differing, strict=True)
        for result in source.results
    ]
    joined = Source(
        title=" + ".join(dict.fromkeys(source.title for source in sources)),
        results=results,
        settings=_join_settings(sources, data_sets),
    )
    check_unique(joined)
    return joined


def _common_overrides(source: Source) -> dict[str, str]:
    """Key -> override, for the overrides that all jobs of a sweep have and that do not vary."""
    first, *others = [set(result.overrides) for result in source.results]
    axes = {key for result in source.results for key in result.axes}
    words = sorted(first.intersection(*others))
    return {key_of(word): word for word in words if key_of(word) not in axes}


def _of_rows(differing: Mapping[str, str], data_sets: Sequence[str]) -> dict[str, str]:
    """The overrides that set rows apart: not the seed, and not those that name a data set."""
    return {k: word for k, word in differing.items() if k not in ("seed", *data_sets)}


def _with_axes(
    result: JobResult,
    differing: Mapping[str, str],
    data_keys: set[str],
    data_sets: Sequence[str] | None,
) -> JobResult:
    """``result`` with the differing overrides as axes.

    Args:
        data_keys: the differing keys that name a data set.
        data_sets: all keys that name a data set; None if the row keeps its name.
    """
    axes = dict.fromkeys(sorted(data_keys), "default")
    axes |= {key: yaml.safe_load(word.partition("=")[2]) for key, word in differing.items()}
    words = [] if data_sets is None else list(_of_rows(differing, data_sets).values())
    return replace(result, axes={**axes, **result.axes}, variant=" ".join([result.variant, *words]))


def _join_settings(sources: Sequence[Source], data_sets: Sequence[str]) -> dict[str, Any]:
    columns = [name for source in sources for name in source.settings.get("columns") or []]
    pairs, primary = (
        dict.fromkeys(tuple(pair) for s in sources for pair in s.settings.get(key) or [])
        for key in ("pairs", "primary")
    )
    published = [entry for source in sources for entry in source.settings.get("reported") or []]
    searches = [source.settings.get("search") for source in sources]
    compared = [name for source in sources for name in source.settings.get("compared") or []]
    margins = {source.settings.get("margin") for source in sources}
    choosers = {source.settings.get("chosen_by") for source in sources}
    settings: dict[str, Any] = {"compared": list(dict.fromkeys(compared))} if compared else {}
    if primary:
        settings["primary"] = list(map(list, primary))
    # a study may have named its column after its first parts had run
    primary_columns = {source.settings.get("primary_column") for source in sources} - {None}
    if len(primary_columns) == 1:
        settings["primary_column"] = primary_columns.pop()
    seeds = [declared_seeds(source.settings) for source in sources]
    if len({str(named) for named in seeds}) == 1:
        settings["grid"] = {"seed": seeds[0]}
    expected = {source.settings.get("expected_std") for source in sources}
    if len(expected) == 1 and None not in expected:
        settings["expected_std"] = expected.pop()
    if len(choosers) == 1 and None not in choosers:
        settings["chosen_by"] = choosers.pop()
    return settings | {
        "margin": margins.pop() if len(margins) == 1 else None,
        "columns": list(dict.fromkeys(columns)) or None,
        "pairs": list(map(list, pairs)),
        "data_sets": list(data_sets),
        "reported": [entry for i, entry in enumerate(published) if entry not in published[:i]],
        "made": [entry for source in sources for entry in source.settings.get("made") or []],
        "search": searches[0] if all(searches) else None,
    }


def declared_seeds(settings: Mapping[str, Any]) -> list[Any]:
    """The seeds that a study named before it ran, whether or not all have run: those of a preset
    with primary contrasts; else none.
    """
    seeds = (settings.get("grid") or {}).get("seed")
    return list(seeds) if settings.get("primary") and isinstance(seeds, list) else []


def check_unique(source: Source) -> None:
    """Raises ``UserError`` if two results have the same row, data set and seed.

    Trials of a search may repeat a setting: each trial is a row.
    """
    if source.settings.get("search"):
        return
    first: dict[Any, JobResult] = {}
    for result in source.results:
        place = (result.variant, result.data_set(source.data_sets), str(result.seed))
        if place in first:
            raise UserError(
                f"two results for {' · '.join(filter(None, place[:2]))}, seed {result.seed}: "
                f"{job_name(first[place])} and {job_name(result)}; leave one out"
            )
        first[place] = result


def job_name(result: JobResult) -> str:
    """The name of a job or run in a message."""
    return result.sweep if result.number is None else f"job {result.number} of {result.sweep}"

"""Several directories in one report: what they differ in becomes an axis, none is counted twice."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from kd_lightning.base.errors import UserError
from kd_lightning.reports.job_results import JobResult, key_of
from kd_lightning.reports.sources import Source


def join(sources: Sequence[Source]) -> Source:
    """One source of all records.

    Sweeps that differ in an override which all their jobs have, such as ``data=…``, get it as an
    axis, and as a part of their rows' names where these would mean two things.

    Raises:
        UserError: two records of the same row, data set and seed.
    """
    if len(sources) == 1:
        check_single(sources[0])
        return sources[0]
    data_sets = tuple(dict.fromkeys(key for source in sources for key in source.data_sets))
    of_all = [_common(source) for source in sources]
    differing = [
        {key: word for key, word in own.items() if any(o.get(key) != word for o in of_all)}
        for own in of_all
    ]
    seen = [{record.variant for record in source.records} for source in sources]
    to_name = any(
        a & b and _rows(differing[i], data_sets) != _rows(differing[j], data_sets)
        for i, a in enumerate(seen)
        for j, b in enumerate(seen[:i])
    )
    kept = {key for own in differing for key in own if key in data_sets}
    records = [
        _placed(record, own, kept, data_sets if to_name else None)
        for source, own in zip(sources, differing, strict=True)
        for record in source.records
    ]
    joined = Source(
        title=" + ".join(dict.fromkeys(source.title for source in sources)),
        records=records,
        settings=_settings(sources, data_sets),
    )
    check_single(joined)
    return joined


def _common(source: Source) -> dict[str, str]:
    """The overrides that all jobs of a sweep have, without those that vary, by key."""
    first, *others = [set(record.overrides) for record in source.records]
    axes = {key for record in source.records for key in record.axes}
    words = sorted(first.intersection(*others))
    return {key_of(word): word for word in words if key_of(word) not in axes}


def _rows(differing: Mapping[str, str], data_sets: Sequence[str]) -> dict[str, str]:
    return {k: word for k, word in differing.items() if k not in ("seed", *data_sets)}


def _placed(
    record: JobResult,
    differing: Mapping[str, str],
    of_data: set[str],
    data_sets: Sequence[str] | None,
) -> JobResult:
    axes = dict.fromkeys(sorted(of_data), "default")
    axes |= {key: yaml.safe_load(word.partition("=")[2]) for key, word in differing.items()}
    words = [] if data_sets is None else list(_rows(differing, data_sets).values())
    return replace(record, axes={**axes, **record.axes}, variant=" ".join([record.variant, *words]))


def _settings(sources: Sequence[Source], data_sets: Sequence[str]) -> dict[str, Any]:
    columns = [name for source in sources for name in source.settings.get("columns") or []]
    pairs = [tuple(pair) for source in sources for pair in source.settings.get("pairs") or []]
    reported = [one for source in sources for one in source.settings.get("reported") or []]
    searches = [source.settings.get("search") for source in sources]
    return {
        "columns": list(dict.fromkeys(columns)) or None,
        "pairs": [list(pair) for pair in dict.fromkeys(pairs)],
        "data_sets": list(data_sets),
        "reported": [one for i, one in enumerate(reported) if one not in reported[:i]],
        "made": [one for source in sources for one in source.settings.get("made") or []],
        "search": searches[0] if all(searches) else None,
    }


def check_single(source: Source) -> None:
    """Raises ``UserError`` if two records are of the same row, data set and seed.

    Trials of a search may repeat: they are rows of their own.
    """
    if source.settings.get("search"):
        return
    seen: dict[Any, JobResult] = {}
    for record in source.records:
        place = (record.variant, record.data_set(source.data_sets), str(record.seed))
        if place in seen:
            raise UserError(
                f"two records of {' · '.join(filter(None, place[:2]))}, seed {record.seed}: "
                f"{name_of(seen[place])} and {name_of(record)}; leave one out"
            )
        seen[place] = record


def name_of(record: JobResult) -> str:
    """A job or a run, as a person finds it."""
    return record.sweep if record.number is None else f"job {record.number} of {record.sweep}"

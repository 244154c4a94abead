"""Settings that preparation has fixed: how the images of a prepared or packed folder were read."""

from collections.abc import Mapping
from typing import Any

from kd_lightning.base.errors import UserError
from kd_lightning.records.run_directory import EARLIER_READING


def resolve_prepared(facts: Mapping[str, Any], key: str, requested: Any) -> Any:
    """The value of ``key`` in preparation.

    Args:
        facts: the metadata that preparation wrote.
        requested: ``data.<key>``; None: that of preparation.

    Raises:
        UserError: another value is requested.
    """
    prepared = facts.get(key, EARLIER_READING[key])
    if requested not in (None, prepared):
        now, then = (str(value).lower() for value in (requested, prepared))
        raise UserError(
            f"the images were prepared with {key}={then}, got data.{key}={now}: remove it, or "
            "prepare the images again with it"
        )
    return prepared

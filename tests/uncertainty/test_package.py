"""``kd_lightning.uncertainty`` exports what its modules define."""

from package_exports import check_exports

from kd_lightning import uncertainty


def test_every_public_name_is_exported() -> None:
    check_exports(uncertainty)

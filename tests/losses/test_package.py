"""``kd_lightning.losses`` exports what its modules define."""

from package_exports import check_exports

from kd_lightning import losses

NOT_EXPORTED = {
    *("check_dimensions", "check_maps", "check_same_kind", "describe_shape"),  # for error messages
    *("mean_regressor", "negative_means", "pointwise", "pooled"),  # parts of feature losses
    *("function_of", "weighs_by_probability"),  # what methods ask of a soft loss
    *("inside", "of_all_ranks"),
}


def test_every_public_name_is_exported() -> None:
    check_exports(losses, NOT_EXPORTED)

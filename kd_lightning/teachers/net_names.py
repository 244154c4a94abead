"""Names of nets for people."""

from omegaconf import DictConfig

# Arguments that say nothing about the architecture.
COMMON = frozenset(
    (
        *("num_classes", "in_chans", "num_inputs", "weights", "weights_key"),
        *("dropout", "block_dropout", "mean", "std", "input_size", "interpolation"),
    )
)


def describe(config: DictConfig) -> str:
    """A net's name for people: timm's, or that of its factory with its sizes."""
    if "name" in config:
        return factory(config)
    shape = [value for key, value in config.items() if key not in COMMON and key[0] != "_"]
    shown = ", ".join(str(value) for value in shape if value is not None)
    return f"{factory(config)}({shown})"


def factory(config: DictConfig) -> str:
    """timm's name of a net, or that of the function that makes it."""
    if "name" in config:
        return str(config.name).split(".")[0]  # without the tag of its weights
    return str(config._target_).rsplit(".", 1)[-1]

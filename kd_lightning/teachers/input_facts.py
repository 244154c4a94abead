"""What a teacher's input must be like, where that is known from, and whether the data agree."""

from collections.abc import Sequence

from omegaconf import DictConfig
from torch import nn

from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.image_files import ImageFiles
from kd_lightning.models.checkpoint_facts import Facts
from kd_lightning.models.classifier import Classifier, Prepare
from kd_lightning.teachers.unused_keys import NO_FILES

AS_DATA = "data.{key}={value}"
LOOKS = ("resize", "crop_fraction", "interpolation")


def given_facts(config: DictConfig, task: DictConfig) -> Facts:
    """What a person has set for a net. The default of a mean and a std is null for timm's nets, and
    the data's for others.
    """
    facts = {}
    mean, std = config.get("mean"), config.get("std")
    is_default = "data_mean" not in config and [mean, std] == [task.mean, task.std]
    if mean is not None and std is not None and not is_default:
        facts |= {"mean": list(mean), "std": list(std)}
    return Facts(
        input_size=config.get("input_size"), interpolation=config.get("interpolation"), **facts
    )


def keep_given_statistics(net: nn.Module, config: DictConfig, task: DictConfig) -> None:
    """Gives a net that was built with a file of weights the mean and std that a person has set,
    instead of the file's.

    Args:
        config: by which the net was built.
    """
    given = given_facts(config, task)
    has_file = config.get("weights", "none") not in NO_FILES
    if has_file and given.mean is not None and isinstance(net, Classifier):
        net.prepare.set_statistics(given.mean, given.std)


def set_input(config: DictConfig, facts: Facts, task: DictConfig) -> None:
    """Sets the size of the net's images and how they are resized, as far as it takes them."""
    if len(task.shape) == 3 and {"input_size", "interpolation"} <= config.keys():
        config.input_size = facts.input_size
        config.interpolation = facts.interpolation


def describe_input(net: nn.Module, origin: str, size: int) -> str:
    """One sentence: with which statistics a teacher normalizes its input, where they are from, and
    how it resizes images; "" for a net that does not say.

    Args:
        origin: of the statistics, in words.
        size: of the data's images, or length of their series.
    """
    if not isinstance(net, Classifier) or not isinstance(net.prepare, Prepare):
        return ""
    prepare = net.prepare
    statistics = "input not normalized"
    if prepare.mean is not None:
        mean, std = (numbers(values.tolist()) for values in (prepare.mean, prepare.std))
        statistics = f"mean {mean}, std {std}, {origin}"
    resized = ""
    if prepare.size is not None and prepare.size != size:
        resized = f"; images resized from {size} to {prepare.size}, {prepare.interpolation}"
    return f"Teacher: {statistics}{resized}"


def numbers(values: Sequence[float]) -> str:
    """At most four numbers with four digits."""
    return " ".join(f"{value:.4g}" for value in values[:4]) + (" …" if len(values) > 4 else "")


def differences(facts: Facts, data: ClassificationData, source: str) -> str:
    """One sentence if the data show images otherwise than the teacher saw them in its training;
    "" if they do not, or nothing is known.

    Teacher and student see the same pixels, so this is a choice for the data.
    """
    if not isinstance(data, ImageFiles):
        return ""
    use = vars(data)
    said = facts.of_samples or {
        "image_size": facts.input_size,
        "resize": facts.resize,
        "crop_fraction": facts.crop_fraction,
        "interpolation": facts.interpolation,
    }
    names = [name for name in ("image_size", *LOOKS) if name in use]
    other = {k: said[k] for k in names if said.get(k) is not None and use[k] != said[k]}
    if not other:
        return ""
    theirs = ", ".join(f"{key} {value}" for key, value in other.items())
    ours = ", ".join(f"{key} {use[key]}" for key in other)
    keys = " ".join(AS_DATA.format(key=key, value=value) for key, value in other.items())
    return (
        f"Teacher: {source} says it saw images with {theirs}; the data have {ours}, for teacher "
        f"and students ({keys} for the teacher's)"
    )

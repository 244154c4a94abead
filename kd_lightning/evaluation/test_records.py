"""Writes what each net predicts on test, and the test samples that are worth a look.

``test_predictions.npz`` of a run directory holds one value per test sample, in the order of the
test part. The nets are in the order of ``metrics.json``.

    labels                       the right classes, int32
    <net>/predicted              the predicted class, int32
    <net>/confidence             the probability of the predicted class, float32
    <net>/label_probability      the probability of the right class, float32

A net without probabilities (the vote) has only ``predicted``.

``test_examples.npz`` holds at most 24 samples. With a teacher they are those on which the teacher
and the first student differ while both are most sure. Without one they are the errors of which the
first student is most sure.

    index, labels                position in the test part, right class, int32
    <net>/predicted, <net>/confidence    as above, of these samples
    image                        (K, C, H, W) uint8, as the nets get them, at most 64 pixels wide
    series                       (K, C, L) float32, at most 256 points and 4 channels; only one of
                                 image and series is there

The same predictions give the same bytes, so a repeated test changes neither file.

Dimensions: N test samples, K examples, C classes, or channels of a sample.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from kd_lightning.base.files import atomic_write

PREDICTIONS, EXAMPLES = "test_predictions.npz", "test_examples.npz"
MAX_EXAMPLES = 24
MAX_PIXELS = 64  # side of an image
MAX_POINTS, MAX_CHANNELS = 256, 4  # of a series

Arrays = dict[str, np.ndarray]


def write(
    directory: Path,
    logits: Mapping[str, Float[Tensor, "N C"]],
    labels: Int[Tensor, " N"],
    loader: DataLoader,
    *,
    student: str,
    without_probabilities: frozenset[str] = frozenset(),
) -> None:
    """Writes both files of a run directory.

    Args:
        logits: of each net on test, in the order of ``metrics.json``.
        loader: the batches that gave ``labels``, in this order.
        student: the first student; examples are chosen by it, and by the net "teacher" if there is
            one.
        without_probabilities: nets of whose logits only the highest has a meaning.
    """
    predictions = predictions_of(logits, labels, without_probabilities)
    _save(directory / PREDICTIONS, predictions)
    chosen = choose_examples(predictions, student)
    samples = reduced(samples_at(loader, chosen, len(labels))) if len(chosen) else {}
    _save(
        directory / EXAMPLES,
        {"index": chosen.astype(np.int32)} | _at(predictions, chosen) | samples,
    )


def predictions_of(
    logits: Mapping[str, Float[Tensor, "N C"]],
    labels: Int[Tensor, " N"],
    without_probabilities: frozenset[str] = frozenset(),
) -> Arrays:
    """The content of ``test_predictions.npz``."""
    arrays = {"labels": labels.numpy().astype(np.int32)}
    for name, net_logits in logits.items():
        arrays[f"{name}/predicted"] = net_logits.argmax(dim=1).numpy().astype(np.int32)
        if name not in without_probabilities:
            probabilities = net_logits.float().softmax(dim=1)
            of_label = probabilities.gather(1, labels[:, None]).squeeze(1)
            arrays[f"{name}/confidence"] = probabilities.amax(dim=1).numpy()
            arrays[f"{name}/label_probability"] = of_label.numpy()
    return arrays


def choose_examples(predictions: Arrays, student: str) -> Int[np.ndarray, " K"]:
    """Positions of at most ``MAX_EXAMPLES`` samples, the surest first."""
    predicted = predictions[f"{student}/predicted"]
    sureness = predictions[f"{student}/confidence"]
    others = predictions["labels"]
    if "teacher/predicted" in predictions:
        others = predictions["teacher/predicted"]
        sureness = np.minimum(sureness, predictions["teacher/confidence"])
    found = np.flatnonzero(predicted != others)
    # stable: equal samples stay in the order of the test part
    return found[np.argsort(-sureness[found], kind="stable")][:MAX_EXAMPLES]


def samples_at(loader: DataLoader, positions: Int[np.ndarray, " K"], count: int) -> Tensor:
    """The samples at these positions of the loader's ``count`` samples."""
    dataset = loader.dataset
    if len(dataset) == count:
        return torch.stack([dataset[0, int(position)][0] for position in positions])
    # Some files were skipped, so a position is no index: only the whole pass finds the sample.
    wanted, found, start = set(positions.tolist()), {}, 0
    for x, *_ in loader:
        end = start + len(x)
        found |= {position: x[position - start] for position in wanted if start <= position < end}
        start = end
    return torch.stack([found[position] for position in positions.tolist()])


def reduced(x: Tensor) -> Arrays:
    """``image`` of images (K, C, H, W), or ``series`` of series (K, C, L), made small."""
    if x.ndim == 4:
        images = x.float() if x.dtype == torch.uint8 else x.float() * 255
        size = [min(side, MAX_PIXELS) for side in x.shape[2:]]
        if size != list(x.shape[2:]):
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return {"image": images.round().clamp(0, 255).to(torch.uint8).numpy()}
    length = x.shape[2]
    points = torch.linspace(0, length - 1, min(length, MAX_POINTS)).round().long()
    return {"series": x[:, :MAX_CHANNELS, points].float().numpy()}


def _at(predictions: Arrays, positions: Int[np.ndarray, " K"]) -> Arrays:
    return {
        name: values[positions]
        for name, values in predictions.items()
        if not name.endswith("/label_probability")
    }


def _save(path: Path, arrays: Arrays) -> None:
    # written into an open file: NumPy would add .npz to the temporary name
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)

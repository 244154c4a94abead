"""Test samples on which teacher and student differ: as pictures, with what each net says."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from markupsafe import Markup
from PIL import Image

from kd_lightning.reports.page.blocks import Answer, Example
from kd_lightning.reports.page.plot import color
from kd_lightning.reports.page.records import RunRecord

WIDTH, HEIGHT = 160, 64  # of a series, pixels

Arrays = Mapping[str, np.ndarray]


def examples_of(record: RunRecord, most: int) -> list[Example]:
    """The first ``most`` examples of a run."""
    arrays = record.examples
    if not arrays or not ({"image", "series"} & set(arrays)):
        return []
    nets = [net for net in record.nets if f"{net}/predicted" in arrays]
    return [_example(record, arrays, nets, i) for i in range(min(most, len(arrays["index"])))]


def _example(record: RunRecord, arrays: Arrays, nets: Sequence[str], i: int) -> Example:
    label = int(arrays["labels"][i])
    answers = [_answer(record, arrays, net, i) for net in nets]
    title, name = f"test sample {int(arrays['index'][i])}", record.class_name(label)
    if "image" in arrays:
        return Example(title, name, answers, picture=png_address(arrays["image"][i]))
    return Example(title, name, answers, svg=series_svg(arrays["series"][i]))


def _answer(record: RunRecord, arrays: Arrays, net: str, i: int) -> Answer:
    predicted = int(arrays[f"{net}/predicted"][i])
    confidences = arrays.get(f"{net}/confidence")
    confidence = None if confidences is None else float(confidences[i])
    is_right = predicted == int(arrays["labels"][i])
    return Answer(net, record.class_name(predicted), confidence, is_right)


def png_address(image: UInt8[np.ndarray, "C H W"]) -> str:
    """An image as the address of a PNG in the page itself. Only 3 channels are shown in color; of
    any other number the first is shown in grey.
    """
    pixels = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def series_svg(series: Float[np.ndarray, "C L"]) -> Markup:
    """A line for each channel, all on one scale."""
    finite = series[np.isfinite(series)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    scaled = (series - low) / max(float(high - low), 1e-12)
    across = np.linspace(2, WIDTH - 2, series.shape[1])
    lines = []
    for number, channel in enumerate(scaled):
        down = 2 + (HEIGHT - 4) * (1 - channel)
        points = " ".join(
            f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True) if np.isfinite(y)
        )
        lines.append(
            Markup('<polyline class="line {}" points="{}"/>').format(color(number), points)
        )
    return Markup('<svg class="series" viewBox="0 0 {} {}" role="img" aria-label="series">{}</svg>'
                  ).format(WIDTH, HEIGHT, Markup("").join(lines))  # fmt: skip

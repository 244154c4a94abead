import numpy as np
import pytest
import torch
from helpers import net
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.data.digits import Digits
from kd_lightning.evaluation.labelled_set import Form, Subject, take_split
from kd_lightning.evaluation.robustness import image_corruptions
from kd_lightning.evaluation.robustness.corruptions import (
    ImageCorruption,
    SeriesCorruption,
    choose_kinds,
    mean_of,
    measure,
    rows_of,
)
from kd_lightning.models.outputs import ModelOutput
from kd_lightning.students.transform import unchanged

IMAGES, SERIES = Form("image", 3, 32, unchanged), Form("series", 1, 30, unchanged)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("kind", image_corruptions.KINDS)
def test_an_image_keeps_its_type_and_shape(kind: str, dtype: torch.dtype) -> None:
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    image = (image * 255).round().to(dtype) if dtype == torch.uint8 else image
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(ImageCorruption(kind, 4)(image))
    assert torch.equal(*results)
    assert (results[0].dtype, results[0].shape) == (dtype, image.shape)
    assert 0 <= results[0].min() <= results[0].max() <= (255 if dtype == torch.uint8 else 1)
    assert not torch.equal(results[0], image)


def test_both_types_are_corrupted_alike() -> None:
    image = (torch.rand(3, 16, 16) * 255).to(torch.uint8)
    for kind in ("contrast", "zoom_blur"):
        results = [ImageCorruption(kind, 5)(x) for x in (image, image / 255)]
        torch.testing.assert_close(results[0] / 255, results[1], atol=0.51 / 255, rtol=0)


def test_a_series_is_corrupted_in_the_units_of_its_channels() -> None:
    corrupt = SeriesCorruption("drift", 5, [0.0, 0.0], [1.0, 10.0])
    result = corrupt(torch.zeros(2, 9))
    assert result.dtype == torch.float32
    assert result[:, -1].abs().tolist() == [2, 20]


def test_kinds_are_chosen_by_name() -> None:
    assert choose_kinds("all", IMAGES) == list(image_corruptions.KINDS)
    assert choose_kinds("fog, snow,fog", IMAGES) == ["fog", "snow"]
    assert "missing_channels" not in choose_kinds("all", SERIES)
    with pytest.raises(UserError, match="unknown corruption of image samples 'fogg': did you mean"):
        choose_kinds("fogg", IMAGES)
    with pytest.raises(UserError, match="unknown corruption of series samples 'fog'"):
        choose_kinds("fog", SERIES)


def test_rows_are_means_over_severities_and_kinds() -> None:
    def cells(*accuracies: float) -> list[dict[str, float]]:
        return [{"accuracy": a, "ece": a / 2, "nll": 1.0} for a in accuracies]

    kinds = {"fog": cells(1, 0.8, 0.6, 0.4, 0.2), "snow": cells(0, 0, 0, 0, 1)}
    clean, fog, snow, mean = rows_of(kinds, {"accuracy": 0.9, "ece": 0.1, "nll": 0.5})
    assert (clean["kind"], clean["accuracy"], clean["severity_1"]) == ("none", 0.9, None)
    assert (fog["severity_2"], fog["accuracy"], fog["ece"]) == pytest.approx((0.8, 0.6, 0.3))
    assert snow["accuracy"] == pytest.approx(0.2)
    assert (mean["severity_1"], mean["severity_5"]) == pytest.approx((0.5, 0.6))
    assert mean["accuracy"] == pytest.approx(0.4) == mean_of(kinds, "accuracy")
    assert len(rows_of({"fog": kinds["fog"]}, clean)) == 2  # no mean of one kind
    assert np.isclose(mean["ece"], 0.2)


class Turned(nn.Module):
    """A net with its classes in the opposite order."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> ModelOutput:
        output = self.net(x)
        return ModelOutput(output.logits.flip(1), output.features)


def test_classes_are_found_by_name_and_students_see_the_same_samples() -> None:
    data = Digits(batch_size=64)
    data.setup()
    labelled = take_split(data, "digits", "val")
    form, names = Form("image", 1, 8, unchanged), data.class_names
    own = net(64, classes=10)
    subjects = [
        Subject("own", "", own, names, form, ("", "")),
        Subject("turned", "", Turned(own), names[::-1], form, ("", "")),
    ]
    told: list[int] = []
    cpu = torch.device("cpu")
    found = measure(subjects, labelled, ["gaussian_noise", "fog"], cpu, told.append)
    assert list(found["own"]) == ["gaussian_noise", "fog"]
    assert [len(cells) for cells in found["own"].values()] == [5, 5]
    for kind, cells in found["own"].items():
        for cell, other in zip(cells, found["turned"][kind], strict=True):
            assert cell == pytest.approx(other, abs=1e-5)
    assert sum(told) == 10 * len(labelled)
    assert found["own"]["fog"][0] != found["own"]["fog"][4]

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from kd_lightning.reports.page.examples import png_address, series_svg


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (2, "L"), (5, "L")])
def test_an_image_is_a_png_in_the_page_with_the_same_pixels(channels, mode):
    image = np.random.default_rng(0).integers(0, 256, (channels, 6, 7), dtype=np.uint8)
    address = png_address(image)
    content = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    found = Image.open(io.BytesIO(content))
    assert (found.mode, found.size) == (mode, (7, 6))
    expected = image.transpose(1, 2, 0) if mode == "RGB" else image[0]
    np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("values", [[0.0, 1.0, np.nan, 2.0], [3.0] * 4, [np.nan] * 4])
def test_a_series_is_a_line_for_each_channel_without_gaps_of_nan(values):
    svg = series_svg(np.array([values, values], dtype=np.float32))
    lines = re.findall(r'points="([^"]*)"', svg)
    assert len(lines) == 2
    assert len(lines[0].split()) == np.isfinite(values).sum()
    assert "nan" not in svg

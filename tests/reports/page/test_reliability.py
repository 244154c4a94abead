import re

import pytest

from kd_lightning.reports.page.reliability import (
    confidence_figure,
    marker_radius,
    reliability_figure,
)

BINS = {"count": [2, 0, 200], "confidence": [0.2, None, 0.9], "accuracy": [0.5, None, 0.8]}


def test_the_area_of_a_marker_is_the_number_of_samples():
    assert marker_radius(100, 400) == pytest.approx(marker_radius(400, 400) / 2)
    assert marker_radius(1, 10**6) > 0


def test_a_bin_of_two_samples_does_not_look_like_one_of_two_hundred():
    svg = reliability_figure("a", BINS, "c0").svg
    few, many = re.findall(r'<circle class="dot ([^"]*)".*?r="([\d.]+)"', svg)
    assert (few[0], many[0]) == ("c0 few", "c0")
    assert float(few[1]) < 0.3 * float(many[1])
    assert re.findall(r'class="count"[^>]*>(\d+)<', svg) == ["2", "200"]


def test_each_bin_has_its_interval_and_empty_bins_have_none():
    svg = reliability_figure("a", BINS, "c0").svg
    assert svg.count('class="interval') == 2
    assert "2 samples, 95 % interval 0.095 to 0.905" in svg
    assert "200 samples, 95 % interval 0.739 to 0.850" in svg


def test_right_and_wrong_answers_are_shares_of_their_own():
    figure = confidence_figure("a", {"right": [0, 30], "wrong": [1, 1]})
    assert [name for _, name in figure.legend] == ["right (30)", "wrong (2)"]
    assert "30 samples right, 100.0 %" in figure.svg
    assert "1 sample wrong, 50.0 %" in figure.svg


def test_a_net_without_errors_has_a_histogram():
    assert "wrong (0)" in confidence_figure("a", {"right": [0, 30], "wrong": [0, 0]}).legend[1]

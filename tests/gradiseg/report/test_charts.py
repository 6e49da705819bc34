"""Charts: round ticks that hold the data, curves inside the frame, well-formed SVG."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradiseg.report.charts import HEIGHT, MAX_POINTS, WIDTH, Series, line_chart, prepare, ticks


@given(st.floats(1e-6, 1e7))
def test_ticks_hold_the_largest_value_in_few_even_steps(largest: float) -> None:
    values = ticks(largest)
    assert values[0] == 0 and values[-1] >= largest * (1 - 1e-9) and values[-2] < largest
    assert 3 <= len(values) <= 6
    assert np.allclose(np.diff(values), values[1])


def test_a_chart_is_well_formed_and_stays_inside_its_frame() -> None:
    generator = np.random.default_rng(0)
    series = [
        Series("a<b & c", [(i, v) for i, v in enumerate(generator.random(5000))]),
        Series("empty", []),
    ]
    svg = ElementTree.fromstring(line_chart("L & K", series))
    numbers = [
        float(n) for line in svg.iter("polyline") for n in re.findall(r"[\d.]+", line.get("points", ""))
    ]
    assert all(0 <= x <= WIDTH for x in numbers[::2]) and all(0 <= y <= HEIGHT for y in numbers[1::2])
    assert 100 < len(numbers) / 2 <= MAX_POINTS


def test_smoothing_keeps_a_line_and_calms_noise() -> None:
    line = [(float(x), 2.0) for x in range(200)]
    assert np.allclose(prepare(line, smooth=True), line)
    noise = [(float(x), y) for x, y in enumerate(np.random.default_rng(1).random(200))]
    assert prepare(noise, True)[:, 1].std() < 0.6 * prepare(noise, False)[:, 1].std()


@pytest.mark.parametrize("points", [[], [(1.0, float("nan"))]])
def test_without_data_the_chart_says_so(points: list[tuple[float, float]]) -> None:
    assert "no data" in line_chart("Loss", [Series("a", points)])


def test_a_curve_of_zeros_can_be_drawn() -> None:
    ElementTree.fromstring(line_chart("Loss", [Series("a", [(0, 0), (0, 0)])]))

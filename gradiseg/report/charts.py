"""Line charts as inline SVG, for pages that must not need a library or a network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 30, 26  # margins: numbers on the left and below, the title above
MAX_POINTS = 300  # more than the chart has pixels to show
SMOOTHING_SHARE = 0.03  # of the run: single iterations see single views and jump between them

CHART_STYLE = """
svg.chart { width: 100%; height: auto } svg.chart text { font-size: 11px; fill: var(--soft) }
svg.chart .title { font-size: 13px; font-weight: 600; fill: var(--ink) }
svg.chart line { stroke: var(--line) }
svg.chart polyline { stroke-width: 1.6 }
svg.chart .s0 { stroke: var(--s0) } svg.chart .s1 { stroke: var(--s1) }
"""


@dataclass(frozen=True)
class Series:
    """A named curve: (x, y) pairs in the order of x."""

    name: str
    points: Sequence[tuple[float, float]]


def line_chart(title: str, series: Sequence[Series], smooth: bool = False) -> str:
    """An SVG chart of the series, y from 0; curve i has the class `s{i}`, which the page's style colours."""
    curves = [prepare(item.points, smooth) for item in series]
    filled = [curve for curve in curves if len(curve)]
    if not filled:
        return f"<p>{escape(title)}: no data.</p>"
    x_end = max(float(curve[:, 0].max()) for curve in filled) or 1.0
    y_ticks = ticks(max(float(curve[:, 1].max()) for curve in filled))
    across, up = (WIDTH - LEFT - RIGHT) / x_end, (HEIGHT - TOP - BOTTOM) / y_ticks[-1]
    parts = [f"<text class='title' x='{LEFT}' y='16'>{escape(title)}</text>"]
    for value in y_ticks:
        y = HEIGHT - BOTTOM - value * up
        parts.append(f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>")
        parts.append(f"<text x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{value:,.10g}</text>")
    for value in (tick for tick in ticks(x_end) if tick <= x_end):
        x = LEFT + value * across
        parts.append(f"<text x='{x:.1f}' y='{HEIGHT - 8}' text-anchor='middle'>{value:,.10g}</text>")
    for index, (item, curve) in enumerate(zip(series, curves, strict=True)):
        path = " ".join(f"{LEFT + x * across:.1f},{HEIGHT - BOTTOM - y * up:.1f}" for x, y in curve)
        name = f"<title>{escape(item.name)}</title>"
        parts.append(f"<polyline class='s{index}' fill='none' points='{path}'>{name}</polyline>")
    label = escape(f"{title}: " + ", ".join(item.name for item in series))
    frame = f"viewBox='0 0 {WIDTH} {HEIGHT}'"
    return f"<svg class='chart' role='img' aria-label='{label}' {frame}>{''.join(parts)}</svg>"


def prepare(points: Sequence[tuple[float, float]], smooth: bool) -> np.ndarray:
    """Curve (P, 2) to draw: finite points, at most `MAX_POINTS`, `smooth` by the mean of a centred window."""
    curve = np.array(points, np.float64).reshape(-1, 2)
    curve = curve[np.isfinite(curve).all(1)]
    if smooth and len(curve):
        reach = int(SMOOTHING_SHARE * len(curve) / 2)
        sums = np.concatenate([[0.0], np.cumsum(curve[:, 1])])
        index = np.arange(len(curve))
        low, high = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(curve))
        curve[:, 1] = (sums[high] - sums[low]) / (high - low)
    return curve[:: math.ceil(len(curve) / MAX_POINTS) or 1]


def ticks(largest: float) -> list[float]:
    """Round numbers from 0 to `largest` or just above it, three to six of them."""
    if not largest > 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(largest))
    step = next(part * power for part in (0.2, 0.5, 1.0, 2.0) if largest <= 5 * part * power)
    return [round(index * step, 12) for index in range(math.ceil(largest / step - 1e-9) + 1)]

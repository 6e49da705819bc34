"""Masks carried over a surface: two walls, one before the other, whose depths are known."""

from pathlib import Path

import numpy as np
import pytest

from gradiseg.finished.carrying import POINTS, PROMPTS, SeenSurface, Trail
from scene.cameras import Camera

WIDTH, HEIGHT, FOCAL = 80, 60, 60.0  # of the map of depths; photographs are twice as large
NEAR, FAR, EDGE = 2.0, 4.0, 0.4  # the near wall stands at x < EDGE
SIZE = (2 * WIDTH, 2 * HEIGHT)


def view(x: float) -> SeenSurface:
    """What a camera at (x, 0, 0) sees that looks along z."""
    lens = (FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2)
    camera = Camera(0, f"{x}", WIDTH, HEIGHT, *lens, np.eye(3), np.array([-x, 0.0, 0.0]))
    depth = np.where(on_near(x), NEAR, FAR)[None].repeat(HEIGHT, 0)
    return SeenSurface(camera, depth, Path("none"), SIZE)


def on_near(x: float) -> np.ndarray:
    """Columns (WIDTH,) in which a camera at x sees the near wall."""
    column = np.arange(WIDTH) + 0.5
    near: np.ndarray = x + (column - WIDTH / 2) / FOCAL * NEAR < EDGE
    return near


def mask_of(columns: np.ndarray) -> np.ndarray:
    """A mask of the photograph's size that covers columns (WIDTH,) of the map from top to bottom."""
    return columns.repeat(2)[None].repeat(2 * HEIGHT, 0)


def test_points_come_back_to_their_pixels_and_hide_behind_what_is_nearer() -> None:
    here, there = view(0.0), view(-1.2)
    index = np.arange(WIDTH * HEIGHT)
    points = here.points_at(index)
    np.testing.assert_array_equal(here.pixels_of(points), index)
    seen = there.pixels_of(points).reshape(HEIGHT, WIDTH)
    near = on_near(0.0)
    columns = np.arange(WIDTH) + 1.2 * FOCAL / np.where(near, NEAR, FAR)
    hidden = ~near & on_near(-1.2)[np.clip(columns.astype(int), 0, WIDTH - 1)]
    expected = np.where((columns < WIDTH) & ~hidden, columns.astype(int), -1)
    assert hidden.any() and (expected >= 0).any()
    np.testing.assert_array_equal(np.where(seen >= 0, seen % WIDTH, -1), expected[None].repeat(HEIGHT, 0))


def test_prompts_lie_on_the_object_in_every_view_that_sees_it() -> None:
    views = [view(x) for x in (0.0, -0.3, -0.9)]
    trail = Trail(views)
    trail.add(0, mask_of(on_near(0.0)))
    for number in (1, 2):
        prompts = trail.prompts(number)
        assert 1 <= len(prompts) <= PROMPTS and (prompts < SIZE).all()
        assert on_near(-0.3 * (1, 3)[number - 1])[(prompts[:, 0] / 2).astype(int)].all()
    assert list(trail.visible()) == sorted(trail.visible(), reverse=True) and trail.visible()[0] == POINTS


def test_a_mask_that_ran_out_is_outvoted() -> None:
    """One view takes both walls; two others know better, and the far wall prompts no more."""
    views = [view(x) for x in (0.0, 0.05, -0.05)]
    trail = Trail(views)
    trail.add(0, mask_of(np.ones(WIDTH, bool)))
    on_far = trail.points[:, 2] > 3.0
    assert on_far.any() and trail.prompting.all()
    trail.add(1, mask_of(on_near(0.05)))
    trail.add(2, mask_of(on_near(-0.05)))
    assert not trail.prompting[: len(on_far)][on_far & (trail.pixels[1, : len(on_far)] >= 0)].any()
    assert trail.prompting[: len(on_far)][~on_far].all()


@pytest.mark.parametrize(("share", "agrees"), [(0.8, True), (0.2, False)])
def test_a_mask_without_what_prompts_is_refused(share: float, agrees: bool) -> None:
    views = [view(0.0), view(0.02)]
    trail = Trail(views)
    trail.add(0, mask_of(on_near(0.0)))
    part = np.arange(WIDTH) < share * on_near(0.02).sum()
    assert trail.agrees(1, mask_of(part)) == agrees

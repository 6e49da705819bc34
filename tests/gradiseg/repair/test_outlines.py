"""Outlines that follow the photographs: offsets are measured right, and moved by right."""

import math

import pytest
import torch
from torch import Tensor

from gradiseg.repair.outlines import (
    FEWEST_PROFILES,
    GAMMA,
    LARGEST_DIAGONAL,
    LARGEST_OFFSET,
    UNCERTAINTY,
    OutlineProfiles,
    _linear_light,
    move_outlines,
    pixels_per_step,
)

SIZE, RADIUS, VIEWS = 96, 30.0, 6
TABLE, BALL, BOX = 0, 1, 2
BRIGHT, DARK = (0.9, 0.8, 0.7), (0.1, 0.05, 0.2)


def distance(view: int) -> Tensor:
    """Of every pixel's centre from the ball's centre, another one in each view: (H, W)."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return torch.hypot(y - 31.3 - 0.37 * view, x - 30.6 + 0.29 * view)


def ball(view: int, radius: float) -> Tensor:
    """Labels of a ball on a table."""
    return torch.where(distance(view) < radius, BALL, TABLE)


def photograph(view: int, ball_colour: tuple[float, ...], table_colour: tuple[float, ...]) -> Tensor:
    """A ball of RADIUS, its edge blurred over one pixel in linear light: (3, H, W) sRGB."""
    cover = (RADIUS - distance(view) + 0.5).clamp(0, 1)
    of_ball, of_table = (torch.tensor(c).pow(GAMMA)[:, None, None] for c in (ball_colour, table_colour))
    return (cover * of_ball + (1 - cover) * of_table).pow(1 / GAMMA)


def measured(radius: float, colours: tuple[tuple[float, ...], tuple[float, ...]] = (BRIGHT, DARK)) -> Tensor:
    """Offsets (2, 2) by labels whose ball has another radius than the photographs'."""
    profiles = OutlineProfiles(2)
    for view in range(VIEWS):
        profiles.add_view(ball(view, radius), photograph(view, *colours))
    return profiles.offsets()


@pytest.mark.parametrize("colours", [(BRIGHT, DARK), (DARK, BRIGHT)])
@pytest.mark.parametrize("error", [-1.4, -0.8, 0.8, 1.4])
def test_an_outline_is_found_where_the_photographs_change(
    error: float, colours: tuple[tuple[float, ...], tuple[float, ...]]
) -> None:
    offsets = measured(RADIUS + error, colours)
    believed = math.copysign(abs(error) - UNCERTAINTY, error)  # never too far
    assert offsets[BALL, TABLE] == pytest.approx(believed, abs=0.2)
    assert abs(offsets[BALL, TABLE]) <= abs(error)
    assert torch.equal(offsets, -offsets.T)


@pytest.mark.parametrize("colours", [(BRIGHT, DARK), (DARK, BRIGHT)])
def test_right_outlines_stay(colours: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    assert measured(RADIUS, colours).abs().max() < 0.05


def test_other_edges_and_photographs_without_edges_move_nothing() -> None:
    assert not measured(RADIUS - LARGEST_OFFSET - 0.6).any()
    assert not measured(RADIUS - 1, (DARK, DARK)).any()


def test_few_profiles_move_nothing() -> None:
    profiles = OutlineProfiles(2)
    for view in range(VIEWS):
        labels = ball(view, RADIUS - 1)
        labels[:, 31:] = -1 if view % 2 else labels[:, 31:]
        labels[20:] = -1 if view % 2 else labels[20:]  # one half of the views sees a small piece
        profiles.add_view(labels, photograph(view, BRIGHT, DARK))
    assert 0 < profiles.profiles[1].sum() < FEWEST_PROFILES < profiles.profiles[0].sum()
    assert not profiles.offsets().any()


def test_profiles_across_a_third_label_do_not_count() -> None:
    profiles = OutlineProfiles(3)
    labels = ball(0, RADIUS - 1)
    labels[distance(0) < RADIUS - 5] = BOX
    profiles.add_view(labels, photograph(0, BRIGHT, DARK))
    assert not profiles.profiles.any()


@pytest.mark.parametrize("error", [-1.2, -0.5, 0.5, 1.2])
def test_moved_outlines_lie_where_they_should_in_all_directions(error: float) -> None:
    offsets = torch.tensor([[0.0, -error], [error, 0.0]])
    dithers = (torch.arange(20) + 0.5) / 20 - 0.5
    area = (
        torch.stack([move_outlines(ball(0, RADIUS + error), offsets, float(d)) for d in dithers]).sum() / 20
    )
    assert math.sqrt(area / math.pi) == pytest.approx(RADIUS, abs=0.15)


def test_no_offset_moves_nothing() -> None:
    labels = ball(0, RADIUS)
    assert torch.equal(move_outlines(labels, torch.zeros(2, 2), 0.4), labels)


@pytest.mark.parametrize("offset", [-1.3, -0.3, 0.0, 0.25, 0.75])
def test_dithered_views_move_by_fractions_in_the_mean(offset: float) -> None:
    labels = torch.where(torch.arange(SIZE) < 30, BALL, TABLE).expand(8, SIZE)
    offsets = torch.tensor([[0.0, -offset], [offset, 0.0]])  # what BALL gives way by
    dithers = (torch.arange(100) + 0.5) / 100 - 0.5
    widths = [(move_outlines(labels, offsets, float(d)) == BALL).sum(1).float().mean() for d in dithers]
    assert sum(widths) / len(widths) == pytest.approx(30 - offset, abs=0.02)


def test_every_pair_moves_by_its_own_offset_and_ignored_pixels_stay() -> None:
    labels = torch.tensor([[TABLE] * 4 + [BALL] * 4 + [BOX] * 4 + [-1] * 4]).repeat(4, 1)
    offsets = torch.zeros(3, 3)
    offsets[TABLE, BALL], offsets[BALL, TABLE] = 1.0, -1.0
    offsets[BALL, BOX], offsets[BOX, BALL] = -2.0, 2.0
    expected = [TABLE] * 3 + [BALL] * 7 + [BOX] * 2 + [-1] * 4
    assert move_outlines(labels, offsets, 0.0).tolist() == [expected] * 4


def test_bits_do_not_depend_on_threads() -> None:
    expected = measured(RADIUS - 1)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    found = measured(RADIUS - 1)
    torch.set_num_threads(before)
    assert torch.equal(found, expected)


def test_ragged_outlines_are_measured_in_the_mean() -> None:
    profiles = OutlineProfiles(2)
    generator = torch.Generator().manual_seed(0)
    for view in range(VIEWS):
        y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
        angle = torch.atan2(y - 31.3, x - 30.6)
        phase = 2 * math.pi * float(torch.rand(1, generator=generator))
        labels = torch.where(distance(view) < RADIUS - 0.9 + 0.6 * torch.sin(7 * angle + phase), BALL, TABLE)
        profiles.add_view(labels, photograph(view, BRIGHT, DARK))
    assert profiles.offsets()[BALL, TABLE] == pytest.approx(-(0.9 - UNCERTAINTY), abs=0.2)


def test_a_view_without_outlines_changes_nothing() -> None:
    profiles = OutlineProfiles(2)
    for labels in (torch.zeros(SIZE, SIZE, dtype=torch.int16), torch.full((SIZE, SIZE), -1)):
        profiles.add_view(labels, photograph(0, BRIGHT, DARK))
        assert torch.equal(move_outlines(labels, torch.ones(2, 2), 0.3), labels)
    assert not profiles.profiles.any()


@pytest.mark.parametrize("enlarged", [2.0, 3.3])
def test_in_a_large_picture_lengths_grow_with_it(enlarged: float) -> None:
    side = round(enlarged * LARGEST_DIAGONAL / math.sqrt(2))
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    from_centre = torch.hypot(y - 0.51 * side, x - 0.47 * side)
    radius, error = 0.3 * side, -enlarged  # beyond LARGEST_OFFSET in pixels
    labels = torch.where(from_centre < radius + error, BALL, TABLE)
    cover = ((radius - from_centre) / enlarged + 0.5).clamp(0, 1)  # an edge as wide as the picture is large
    picture = (0.1 + 0.7 * cover).pow(1 / GAMMA).expand(3, side, side)
    profiles = OutlineProfiles(2)
    for _ in range(2):  # two halves of the views
        profiles.add_view(labels, picture)
    offsets = profiles.offsets() * pixels_per_step(labels)
    uncertain = UNCERTAINTY * enlarged
    assert offsets[BALL, TABLE] == pytest.approx(error + uncertain, abs=0.2 * enlarged)
    moved = move_outlines(labels, offsets, 0.0)
    assert math.sqrt(int(moved.sum()) / math.pi) == pytest.approx(radius - uncertain, abs=0.3 * enlarged)


def test_halves_of_the_views_that_disagree_move_nothing() -> None:
    profiles = OutlineProfiles(2)
    for view in range(VIEWS):
        error = 0.8 if view % 2 else -0.4
        profiles.add_view(ball(view, RADIUS + error), photograph(view, BRIGHT, DARK))
    assert not profiles.offsets().any()


def bar(view: int, thickness: float, error: float) -> tuple[Tensor, Tensor]:
    """Labels of a slanted rod on a table, wider by `error` on either side than its photograph."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    from_axis = ((y - SIZE / 2 - 0.31 * view) * 0.8 + (x - SIZE / 2) * 0.6).abs()
    cover = (thickness / 2 - from_axis + 0.5).clamp(0, 1)
    picture = (0.1 + 0.7 * cover).pow(1 / GAMMA).expand(3, SIZE, SIZE)
    return torch.where(from_axis < thickness / 2 + error, BALL, TABLE), picture


@pytest.mark.parametrize("error", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("thickness", [2.5, 4.0, 6.0, 9.0])
def test_outlines_of_thin_objects_stay(thickness: float, error: float) -> None:
    profiles = OutlineProfiles(2)
    for view in range(VIEWS):
        profiles.add_view(*bar(view, thickness, error))
    assert not profiles.offsets().any()


def test_the_thickness_of_a_rod_is_its_width() -> None:
    profiles = OutlineProfiles(2)
    for view in range(VIEWS):
        profiles.add_view(*bar(view, 18.0, 0.0))
    assert profiles.thickness[BALL] == pytest.approx(18.0 / 1.4, rel=0.1)  # a slanted outline is a staircase


def test_outlines_of_rings_and_dice_stay() -> None:
    ring, die = OutlineProfiles(2), OutlineProfiles(2)
    for view in range(VIEWS):
        far = distance(view)
        true, seen = (far > 18) & (far < 24), (far > 17) & (far < 25)  # 6 pixels across, masks of 8
        ring.add_view(torch.where(seen, BALL, TABLE), torch.where(true, 0.8, 0.1).expand(3, SIZE, SIZE))
        y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
        side = torch.maximum((y - 40).abs(), (x - 40 - view).abs())  # a die of 9 pixels, masks of 11
        picture = torch.where(side < 4.5, 0.8, 0.1).expand(3, SIZE, SIZE)
        die.add_view(torch.where(side < 5.5, BALL, TABLE), picture)
    assert not ring.offsets().any() and not die.offsets().any()


def test_linear_light_has_the_same_bits_for_any_number_of_threads(one_thread: None) -> None:
    picture = torch.rand(3, 361, 483, generator=torch.Generator().manual_seed(0))
    picture[0, 0] = 0.0
    expected = _linear_light(picture)
    torch.testing.assert_close(expected, picture**GAMMA)
    for threads in (2, 3, 4):
        torch.set_num_threads(threads)
        assert torch.equal(_linear_light(picture), expected)
